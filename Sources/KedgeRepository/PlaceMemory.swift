// What a host remembers of the place of a repository: which one it has seen there (docs/decisions/0023).
//
// An empty mount point looks like the place of a new repository. A second one that is made there by a hurried `init`
// takes WAL that nobody finds again once the disk is mounted, and "proves" that archived WAL is absent until then. So
// where another repository, or none, lies in a place than the one that is known, none is made, nothing is written and
// no absence is proven, until `init --replace-repository` confirms it. Losing the memory costs this check until the
// place is used again, and nothing else.

package import KedgeCore

/// Remembers the repository in one configured place. What can't be read is not known, and what can't be written is
/// forgotten: an implementation reports both and throws neither, since WAL must be archived all the same.
package protocol PlaceMemory: Sendable {
    /// The place as it is configured, for messages.
    var place: String { get }

    /// Where the notes lie, for messages.
    var locations: [String] { get }

    /// What each note says, in the order of `locations`; nil for one that is missing or can't be used.
    func known() -> [RandomID?]

    /// Makes note of the repository that lies there now, in place of what was known.
    func remember(_ repository: RandomID)
}

extension RepositorySettings {
    /// Why what lies in the place must not be used for what was attempted (`what`): this host knows another repository
    /// there than `found` (nil: there is none). Nil where all is well, and where nothing is known.
    package func stranger(to found: RandomID?, _ what: String) -> KedgeError? {
        stranger(to: found, known: placeMemory?.known() ?? [], what)
    }

    private func stranger(to found: RandomID?, known: [RandomID?], _ what: String) -> KedgeError? {
        guard let placeMemory else { return nil }
        let others = zip(placeMemory.locations, known).filter { note in
            note.1.map { $0 != found && $0 != replacedRepository } ?? false
        }
        guard let other = others.first?.1 else { return nil }
        let present = found.map { "the repository \($0)" } ?? "no repository"
        let notes = others.map { "\"\($0.0)\"" }.joined(separator: " and ")
        return KedgeError(
            .repositoryUnavailable, "\(what): its place holds \(found == nil ? "no repository" : "another one") now",
            detail: "In \(placeMemory.place) is \(present), but this host has seen the repository \(other) there, "
                + "and noted that in \(notes).",
            hint: "Check that its file system is mounted, and the repository's location in the configuration.  If that "
                + "repository is no more and another one is to take its place, run \"kedge init "
                + "--replace-repository \(other)\" as the same user; where that can't be done, remove the note.")
    }

    /// Looks at the place of a repository that is being opened. Returns what is wrong, for reading, and warns of it;
    /// and whether the repository is to be remembered once it is open.
    ///
    /// Throws `repository-unavailable` for anything but reading where another repository is known.
    func checkPlace(
        of identity: RepositoryIdentity, for use: RepositoryUse
    ) throws(KedgeError) -> (stranger: KedgeError?, isNews: Bool) {
        let known = placeMemory?.known() ?? []
        let what = use == .read ? "cannot rely on what is missing in" : "cannot write to"
        guard let stranger = stranger(to: identity.id, known: known, "\(what) repository \"\(name)\"") else {
            return (nil, known.contains { $0 != identity.id })
        }
        guard use == .read else { throw stranger }
        warn?("\(stranger.message).  \(stranger.detail ?? "")")
        return (stranger, false)
    }
}
