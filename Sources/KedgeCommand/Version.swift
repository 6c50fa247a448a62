/// What this build calls itself.
package enum Version {
    /// The release, after semver.org.
    package static let text = "0.1.0"
    /// The version of the repository format that is written (Catalog/CHANGES.md).
    package static let repositoryFormat = "0-draft"
}
