/// Which kedge this is.
package enum Version {
    package static let text = "0.1.0"
    /// How this kedge names itself in what it writes: `createdBy`, and the writer of a sealed object.
    package static let writer = "kedge \(text)"
}
