// What went wrong in which of several repositories, told as one error.

package import KedgeCore

/// Failures of repositories, in the order in which they were tried.
package struct RepositoryFailures: Sendable {
    package private(set) var all: [(repository: String, error: KedgeError)] = []

    package init() {}

    package var isEmpty: Bool { all.isEmpty }

    package mutating func add(_ error: KedgeError, of repository: String) { all.append((repository, error)) }

    /// One error that names each repository; nil where none failed. Code and hint are those of the first.
    ///
    /// `attempt` is what was tried, such as `could not archive WAL file "…"`. `note` is a sentence about those that did
    /// not fail.
    package func error(_ attempt: String, note: String? = nil) -> KedgeError? {
        guard let first = all.first else { return nil }
        guard all.count > 1 else {
            return first.error.wrapped("\(attempt) in repository \"\(first.repository)\"", detail: note)
        }
        let names = all.map { "\"\($0.repository)\"" }
        let told = names.dropLast().joined(separator: ", ") + " and " + (names.last ?? "")
        var sentences = all.map { "Repository \"\($0.repository)\": \(RepositoryFailures.text($0.error))" }
        if let note { sentences.append(note) }
        return KedgeError(
            first.error.code, "\(attempt) in repositories \(told)", detail: sentences.joined(separator: " "),
            hint: first.error.hint)
    }

    /// The error as sentences: its message, its detail, and those of what led to it.
    package static func text(_ error: KedgeError) -> String {
        var parts = [error.message + "."]
        if let detail = error.detail { parts.append(detail) }
        if let cause = error.cause { parts.append(text(cause)) }
        return parts.joined(separator: " ")
    }
}
