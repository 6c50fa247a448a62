// Whether repositories and keys lie where a restore will not remove them, and each repository in a place of its own.

import KedgeCore
import KedgePostgres
import KedgeRepository

/// What `init` and `check` have to say about where things lie.
struct PlaceCheck {
    let dataDirectory: RawPath
    /// Nil where it could not be read.
    let control: ControlFile?
    let kept: [KeptPath]

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
