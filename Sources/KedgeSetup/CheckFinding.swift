// What `check` found out, one value for each thing that it looked at.

package import KedgeCore

/// What was looked at. The raw value is a stable word of the JSON output.
package enum CheckSubject: String, Sendable, CaseIterable {
    case workDirectory = "work-directory"
    case dataDirectory = "pgdata"
    case repository = "repository"
    case storage = "storage"
    case objectStore = "object-store"
    case space = "space"
    case registration = "registration"
    case wal = "wal"
    case connection = "connection"
    case version = "version"
    case server = "server"
    case privileges = "privileges"
    case walLevel = "wal_level"
    case archiveMode = "archive_mode"
    case archiveCommand = "archive_command"
    case fullPageWrites = "full_page_writes"
    case archiving = "archiving"
}

/// One thing that was looked at, and what was seen.
package struct CheckFinding: Sendable {
    package enum Verdict: Sendable {
        /// As it should be; a short text says what was seen.
        case ok(String)
        /// It works, and somebody should know or change something.
        case warning(KedgeError)
        case failed(KedgeError)
    }

    package let subject: CheckSubject
    /// Nil for what is not about one repository.
    package let repository: String?
    package let verdict: Verdict

    package var hasFailed: Bool { if case .failed = verdict { true } else { false } }
    package var isWarning: Bool { if case .warning = verdict { true } else { false } }
}

/// Collects findings. What is tried and throws becomes a failure, except that an interruption ends the whole check.
struct CheckReport {
    private(set) var findings: [CheckFinding] = []

    mutating func ok(_ subject: CheckSubject, in repository: String? = nil, _ text: String) {
        add(subject, repository, .ok(text))
    }

    mutating func warn(_ subject: CheckSubject, in repository: String? = nil, _ error: KedgeError) {
        add(subject, repository, .warning(error))
    }

    mutating func fail(_ subject: CheckSubject, in repository: String? = nil, _ error: KedgeError) {
        add(subject, repository, .failed(error))
    }

    /// What `body` returns; nil where it failed, which is then a finding.
    mutating func attempt<Value>(
        _ subject: CheckSubject, in repository: String? = nil, _ body: () throws(KedgeError) -> Value
    ) throws(KedgeError) -> Value? {
        do throws(KedgeError) {
            return try body()
        } catch {
            guard error.code != .interrupted else { throw error }
            fail(subject, in: repository, error)
            return nil
        }
    }

    private mutating func add(_ subject: CheckSubject, _ repository: String?, _ verdict: CheckFinding.Verdict) {
        findings.append(CheckFinding(subject: subject, repository: repository, verdict: verdict))
    }
}
