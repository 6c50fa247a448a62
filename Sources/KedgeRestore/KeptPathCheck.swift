// That a restore removes nothing that it, or the next one, needs: the repository, the key, Kedge's own files.

import KedgeCore
import KedgePostgres

extension Restore.Options {
    /// Where this restore removes what the backup does not have.
    private func clearedDirectories(
        _ placements: [TablespacePlacement], _ created: [CreatedTablespace], _ versionDirectory: String
    ) throws(KedgeError) -> [ClearedDirectory] {
        var cleared = [ClearedDirectory("the data directory", try FileSystem.resolved(pgdata))]
        for path in [walDirectory, pgdata.appending("pg_wal")].compactMap(\.self) {
            cleared.append(ClearedDirectory("the directory of the WAL", try FileSystem.resolved(path)))
        }
        let tablespaces = placements.map { ($0.oid, $0.target) } + created.map { ($0.oid, $0.path) }
        for (oid, path) in tablespaces where path.isAbsolute {
            let directory = try FileSystem.resolved(path.appending(versionDirectory))
            cleared.append(ClearedDirectory("the directory of tablespace \(oid),", directory))
        }
        return cleared
    }

    /// Throws `usage` where something that has to stay lies in what this restore clears. To be called before anything
    /// is changed.
    func requireNothingKept(
        _ placements: [TablespacePlacement], created: [CreatedTablespace], versionDirectory: String
    ) throws(KedgeError) {
        guard !keptPaths.isEmpty else { return }
        let cleared = try clearedDirectories(placements, created, versionDirectory)
        guard
            var error = PathConflict.error(
                "cannot restore into directory \"\(pgdata)\": it would remove what Kedge itself needs",
                PathConflict.find(keptPaths, in: cleared))
        else { return }
        // Another code than the configuration's own faults: no other repository could do better.
        error = KedgeError(
            .usage, error.message, detail: error.detail,
            hint: (error.hint ?? "") + "  Or restore into another directory with \"--pgdata\".")
        throw error
    }
}
