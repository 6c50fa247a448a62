// The one error type of the product.

/// An error as a user reads it: what happened, to which object, why, and what to do next.
///
/// `message` is one line without a full stop that starts in lower case and names the kind of object before its quoted
/// name; it says what was attempted. "could not" when a retry might work, "cannot" when it never will. `detail` and
/// `hint` are full sentences. None of them ever holds a secret.
package struct KedgeError: Error, Sendable {
    package var code: ErrorCode
    package var message: String
    package var detail: String?
    package var hint: String?
    private var causes: [KedgeError]

    package init(
        _ code: ErrorCode, _ message: String, detail: String? = nil, hint: String? = nil, cause: KedgeError? = nil
    ) {
        self.code = code
        self.message = message
        self.detail = detail
        self.hint = hint
        self.causes = cause.map { [$0] } ?? []
    }

    /// The error that led to this one, if it is worth showing.
    package var cause: KedgeError? { causes.first }

    /// This error with `code` and `hint` kept, told as part of a larger attempt; the original becomes the cause.
    package func wrapped(_ message: String, detail: String? = nil, hint: String? = nil) -> KedgeError {
        KedgeError(code, message, detail: detail, hint: hint ?? self.hint, cause: self)
    }
}

extension KedgeError: CustomStringConvertible {
    /// All parts on lines of their own; for test failures and debug logs. Users see `OutputRenderer`'s text.
    package var description: String {
        var text = "\(message)\ncode: \(code.rawValue)"
        if let detail { text += "\ndetail: \(detail)" }
        if let hint { text += "\nhint: \(hint)" }
        if let cause { text += "\ncaused by: \(cause)" }
        return text
    }
}
