// Whether repositories and keys lie where a restore will not remove them, each repository in a place of its own, and
// the directories that a restore writes to in no other cluster.

import KedgeCore
import KedgePostgres
import KedgeRepository
import KedgeRestore

/// What `init` and `check` have to say about where things lie.
struct PlaceCheck {
    let dataDirectory: RawPath
    /// Nil where it could not be read.
    let control: ControlFile?
    let kept: [KeptPath]
    /// Below which drills restore; nil where that is not to be looked at.
    var drillDirectory: RawPath?

    /// Throws what looking throws.
    func run() throws(KedgeError) -> (refusal: KedgeError?, warning: KedgeError?) {
        let cleared = try clearedDirectories()
        let found = PathConflict.find(kept, in: cleared)
        let refused =
            found.filter { $0.kept.kind == .repository } + PlaceCheck.dataInRepository(cleared, kept: kept)
        return (
            PathConflict.error(
                "cannot use a repository that shares a directory with the database", refused,
                because: "A restore removes from the database's directories what its backup does not have."),
            PathConflict.error(
                "a file of Kedge's own lies in a directory of the database",
                found.filter { $0.kept.kind != .repository })
        )
    }

    /// What `restore` and `drill` would say of the directories that are configured, on the worst of all days: something
    /// above them looks like a cluster, such as a stray PG_VERSION. One error for each, with what to do now.
    func enclosed() throws(KedgeError) -> [KedgeError] {
        // Of these the directories above count; drills restore into directories of their own below theirs.
        var places = try clearedDirectories().map { directory in
            (
                name: directory.name.hasSuffix(",") ? String(directory.name.dropLast()) : directory.name,
                path: directory.path, orIs: false
            )
        }
        if let drillDirectory {
            places.append(("the drill-directory", try FileSystem.resolved(drillDirectory), true))
        }
        var errors: [KedgeError] = []
        for place in places {
            let found = try EnclosingCluster.find(around: place.path, orIs: place.orIs) { (path) throws(KedgeError) in
                try FileSystem.exists(path)
            }
            guard let found else { continue }
            let stray = found.mark.map {
                "If there is no cluster in \"\(found.directory)\", something left "
                    + "\"\(found.directory.appending($0))\" there: remove that now.  Otherwise move"
            }
            errors.append(
                KedgeError(
                    .configuration,
                    "nothing could be restored to \(place.name) \"\(place.path)\": it lies in another cluster",
                    detail: found.sentence,
                    hint: "\(stray ?? "Move") \(place.name) out of it: \"kedge restore\" and \"kedge drill\" write "
                        + "into no other cluster."))
        }
        return errors
    }

    /// Directories of the database that lie in a repository.
    static func dataInRepository(_ cleared: [ClearedDirectory], kept: [KeptPath]) -> [PathConflict] {
        let repositories = kept.filter { $0.kind == .repository }.flatMap { repository in
            repository.places.map { ClearedDirectory(repository.name, $0) }
        }
        // What is both is told already.
        let data = cleared.filter { directory in !repositories.contains { $0.path.liesAtOrBelow(directory.path) } }
        return PathConflict.find(data.map { KeptPath(.other, $0.name, places: [$0.path]) }, in: repositories)
    }

    /// The directories of this database system that a restore clears.
    private func clearedDirectories() throws(KedgeError) -> [ClearedDirectory] {
        let data = try FileSystem.resolved(dataDirectory)
        var cleared = [ClearedDirectory("the data directory", data)]
        let wal = try FileSystem.resolved(data.appending("pg_wal"))
        if !wal.liesAtOrBelow(data) { cleared.append(ClearedDirectory("the directory of the WAL", wal)) }
        guard let control else { return cleared }
        let version = "PG_\(control.version.major)_\(control.version.catalogVersion)"
        let links = data.appending("pg_tblspc")
        for entry in try entries(links) where entry.kind == .symbolicLink {
            // GetTablespaceVersionDirectory: what lies beside it is not this cluster's.
            let directory = try FileSystem.resolved(links.appending(entry.name)).appending(version)
            cleared.append(ClearedDirectory("the directory of tablespace \(entry.name),", directory))
        }
        return cleared
    }

    private func entries(_ path: RawPath) throws(KedgeError) -> [DirectoryEntry] {
        do throws(KedgeError) {
            return try Directory.entries(at: path)
        } catch  where error.code == .notFound {
            return []
        }
    }
}
