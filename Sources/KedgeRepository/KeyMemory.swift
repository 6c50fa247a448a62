// What a host remembers of a repository's data keys (docs/decisions/0008).
//
// Whoever can write to a repository can put an old state of its key directory back, or remove the slots of the newest
// data key. A host would then seal with an older key again, perhaps the very one that was given up because it is known
// to others. So a host that has seen a newer key refuses to write with an older one. Losing the memory costs this check
// until the newer key is seen again, and nothing else.

package import KedgeCodec
package import KedgeCore

/// Remembers the newest data key that was seen in each repository. What can't be read is not known, and what can't be
/// written is forgotten: an implementation reports both and throws neither, since WAL must be archived all the same.
package protocol KeyMemory: Sendable {
    /// Where it is kept, for messages.
    func location(of repository: RandomID) -> String

    /// The newest key that was seen; nil where nothing is known.
    func newestKey(of repository: RandomID) -> KeyVersion?

    /// Makes note of a key that is newer than what is known.
    func remember(_ key: KeyVersion, of repository: RandomID)
}
