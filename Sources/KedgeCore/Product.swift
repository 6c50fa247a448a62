/// What this program calls itself.
package enum Product {
    /// The version of kedge, by semantic versioning.
    package static let version = "0.1.0"

    /// The writer that objects name as theirs: `kedge 0.1.0`.
    package static let writer = "kedge \(version)"
}
