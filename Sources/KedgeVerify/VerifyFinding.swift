// What a verification found to be wrong, and what it costs.

package import KedgeCatalog
package import KedgeCore
import Synchronization

/// One object of a repository that is not as it should be.
package struct VerifyFinding: Sendable {
    package enum Kind: String, Sendable, CaseIterable {
        /// It is there, and not what was written.
        case damaged
        /// Something refers to it, and it is not there.
        case missing
        /// There are several of one name with different content, and nobody can tell which is right.
        case conflict
        /// The backup itself recorded, when it was taken, that the server's own pages or WAL were damaged.
        case recorded
        /// It could not be read, though others could: nobody can tell whether it is damaged.
        case unreadable
        /// Its name means nothing to kedge.
        case foreign
        /// Nothing refers to it: what interrupted or running backups leave.
        case surplus

        /// What an error makes of the object that is to blame for it.
        init(of error: KedgeError) {
            switch error.code {
            case .notFound: self = .missing
            case .archiveConflict: self = .conflict
            default: self = error.code.isDamageOfTheObject ? .damaged : .unreadable
            }
        }

        /// Whether something that was stored cannot be had any more. The rest is information.
        package var isDamage: Bool {
            switch self {
            case .damaged, .missing, .conflict, .recorded: true
            case .unreadable, .foreign, .surplus: false
            }
        }
    }

    package private(set) var kind: Kind
    /// The object's full name, as it is stored.
    package let object: String
    package private(set) var error: KedgeError
    /// The backups that refer to it, or that it costs something; sorted.
    package var backups: [Label]
    /// What it costs, a sentence each.
    package var costs: [String]

    package init(kind: Kind, object: String, error: KedgeError, backups: [Label] = [], costs: [String] = []) {
        self.kind = kind
        self.object = object
        self.error = error
        self.backups = backups
        self.costs = costs
    }

    /// The most findings that are kept, and the most costs that one of them names.
    package static let limit = 1000
    package static let listedCosts = 10

    /// Adds what it costs one more backup.
    mutating func add(_ label: Label, _ cost: String? = nil) {
        if !backups.contains(label) { backups = (backups + [label]).sorted() }
        if let cost { add(cost) }
    }

    /// Adds what was found of the same object later. What is damaged in one place stays so where another can't be read.
    fileprivate mutating func add(_ later: VerifyFinding) {
        if later.kind.isDamage, !kind.isDamage { (kind, error) = (later.kind, later.error) }
        for label in later.backups { add(label) }
        for cost in later.costs { add(cost) }
    }

    private mutating func add(_ cost: String) {
        if costs.count < Self.listedCosts, !costs.contains(cost) { costs.append(cost) }
    }
}

/// Collects findings, one for each object. Any number of threads may add.
final class Findings: Sendable {
    private struct State {
        var found: [String: VerifyFinding] = [:]
        var order: [String] = []
        var dropped = 0
        var hasUnread = false
    }

    private let state = Mutex(State())

    /// Adds a finding; what is known of the object already is added to.
    func add(_ finding: VerifyFinding) {
        state.withLock { state in
            if finding.kind == .unreadable { state.hasUnread = true }
            if state.found[finding.object] != nil {
                state.found[finding.object]?.add(finding)
            } else if state.order.count < VerifyFinding.limit || finding.kind.isDamage {
                state.order.append(finding.object)
                state.found[finding.object] = finding
            } else {
                state.dropped += 1
            }
        }
    }

    /// Says what an object that was found before costs.
    func cost(of object: String, _ label: Label, _ cost: String? = nil) {
        state.withLock { $0.found[object]?.add(label, cost) }
    }

    func contains(_ object: String) -> Bool { state.withLock { $0.found[object] != nil } }

    /// Whether something could not be read, be it part of an object that is damaged elsewhere, or not listed any more.
    var hasUnread: Bool { state.withLock { $0.hasUnread } }

    /// In the order in which they were found; and how many more there were that are no damage.
    var all: (findings: [VerifyFinding], dropped: Int) {
        state.withLock { state in (state.order.compactMap { state.found[$0] }, state.dropped) }
    }

    /// Forgets damage to WAL that costs no backup: it was removed with those that are gone.
    func forgetUnneededWAL() {
        state.withLock { state in
            for (object, finding) in state.found
            where finding.kind.isDamage && finding.backups.isEmpty && object.contains("/wal/") {
                state.found[object] = nil
            }
            state.order.removeAll { state.found[$0] == nil }
        }
    }

    /// Forgets the damage that costs only backups that are gone meanwhile.
    func forget(_ gone: Set<Label>) {
        guard !gone.isEmpty else { return }
        state.withLock { state in
            for (object, finding) in state.found where finding.kind.isDamage && !finding.backups.isEmpty {
                let left = finding.backups.filter { !gone.contains($0) }
                if left.isEmpty { state.found[object] = nil } else { state.found[object]?.backups = left }
            }
            state.order.removeAll { state.found[$0] == nil }
        }
    }
}

extension ErrorCode {
    /// Whether what was read is to blame, and not the way to it: only then something is damaged. What a newer kedge
    /// wrote is neither: nobody can tell.
    var isDamageOfTheObject: Bool {
        switch self {
        case .damaged, .notFound, .keyMissing, .keyWrong, .walInvalid, .walForeign, .walSuspect, .unsafePath,
            .archiveConflict, .pageDamaged:
            true
        default: false
        }
    }
}
