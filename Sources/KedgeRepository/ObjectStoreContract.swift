// The promises of `ObjectStore.swift` as checks that any store must pass: ours in the tests, the user's own store in
// `kedge check`. A check uses nothing but the protocol and writes only below a directory of its own.

package import KedgeCore

/// One promise of a store and how to see whether it holds.
package struct StorePromise: Sendable {
    /// A sentence that is true of every good store.
    package let title: String
    let check: @Sendable (ContractBench) throws(KedgeError) -> Void

    init(_ title: String, _ check: @escaping @Sendable (ContractBench) throws(KedgeError) -> Void) {
        self.title = title
        self.check = check
    }

    /// Checks the promise on `store` below `directory`, which must hold no objects, and removes what it made.
    ///
    /// Throws `not-supported` if the promise does not hold, and what the store throws if it fails.
    package func verify(on store: any ObjectStore, below directory: ObjectName) throws(KedgeError) {
        let bench = ContractBench(store: store, directory: directory, title: title)
        do throws(KedgeError) {
            try check(bench)
        } catch {
            do throws(KedgeError) {
                try bench.clear()
            } catch {
                // The first error is the one to know; the objects that stay lie in a directory of their own.
            }
            throw error
        }
        try bench.clear()
    }
}

extension StorePromise: CustomStringConvertible {
    package var description: String { title }
}

/// All promises, in the order in which a broken one explains the next best.
package enum ObjectStoreContract {
    package static let promises: [StorePromise] = objectPromises + writingPromises + listingPromises
}

/// What a check works with.
struct ContractBench: Sendable {
    let store: any ObjectStore
    let directory: ObjectName
    let title: String

    /// The object `text` below the directory of this check.
    func name(_ text: String) throws(KedgeError) -> ObjectName {
        guard let name = directory.appending(text) else {
            throw KedgeError(.defect, "cannot check a store with object name \"\(text)\"", hint: "Please report this.")
        }
        return name
    }

    /// Throws unless `condition` is true; `seen` says what was seen instead of the promise.
    func expect(_ condition: Bool, _ seen: @autoclosure () -> String) throws(KedgeError) {
        guard !condition else { return }
        throw KedgeError(
            .notSupported, "cannot rely on \(store.location): it breaks the promise that \(title)",
            detail: seen() + ".", hint: "Use another store, or ask its maker about this promise.")
    }

    /// Throws unless `call` throws an error with this code.
    func expectError(
        _ code: ErrorCode, _ what: String, _ call: () throws(KedgeError) -> Void
    ) throws(KedgeError) {
        do throws(KedgeError) {
            try call()
        } catch {
            return try expect(error.code == code, "\(what) gave the error \(error.code.rawValue): \(error.message)")
        }
        try expect(false, "\(what) gave no error")
    }

    func put(
        _ text: String, _ bytes: [UInt8], _ condition: PutCondition = .createOnly
    ) throws(KedgeError) -> PutOutcome {
        try store.put(name(text), ObjectBody(bytes), condition)
    }

    func bytes(_ text: String, limit: Int = 1 << 20) throws(KedgeError) -> [UInt8] {
        try store.readAll(name(text), limit: limit)
    }

    /// The names below the directory of this check, without it.
    func names() throws(KedgeError) -> [String] {
        var names: [String] = []
        try store.forEachObject(below: directory, pageSize: 7) { names.append(relative($0.name)) }
        return names
    }

    func relative(_ name: ObjectName) -> String { String(name.text.dropFirst(directory.text.count + 1)) }

    fileprivate func clear() throws(KedgeError) {
        var names: [ObjectName] = []
        try store.forEachObject(below: directory) { names.append($0.name) }
        if let failure = try store.remove(names).first { throw failure.error }
    }
}

/// `count` bytes that differ from place to place.
func contractBytes(_ count: Int, seed: Int = 0) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: ($0 &* 31 &+ seed) ^ ($0 >> 8)) }
}
