// Which error of reading is about one object, and which ends the work on a repository.
//
//  1. What is not what was written is damage of that object.
//  2. What can't be read while the repository answers otherwise is not known to be damaged or sound: it is told,
//     nothing that rests on it is judged, and the rest goes on.
//  3. Where the repository itself does not answer, or too much can't be read, the work on it ends.

import KedgeCore
import KedgeRepository
import Synchronization

/// Judges errors of reading. Any number of threads may ask.
final class ReadErrors: Sendable {
    private let store: any ObjectStore
    private let count = Mutex(0)

    /// So many objects may be unreadable before the work ends: each has cost the store's retries.
    static let limit = 100

    init(_ store: any ObjectStore) { self.store = store }

    /// Returns the error where the object alone is to blame. Throws it where that is not so, or nobody can tell.
    func tolerate(_ error: KedgeError) throws(KedgeError) -> KedgeError {
        if error.code.isDamageOfTheObject { return error }
        switch error.code {
        case .formatUnknown, .featureUnknown: return error
        case .inputOutput, .permission, .repositoryUnavailable, .timeout: break
        default: throw error
        }
        let isTooMany = count.withLock { count in
            count += 1
            return count > Self.limit
        }
        guard !isTooMany, answers() else { throw error }
        return error
    }

    /// Whether the repository can be read at all.
    private func answers() -> Bool {
        do throws(KedgeError) {
            return try !store.readPrefix(RepositoryLayout.marker, limit: 1).isEmpty
        } catch {
            return false
        }
    }
}
