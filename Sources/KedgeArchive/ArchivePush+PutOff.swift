// What was put off while too much waited to be archived (QueueLimit.swift) is stored by the next push that works for
// its database system: what its own file depends on first, and the rest behind it.

import KedgeCatalog
import KedgeCodec
import KedgeCore
import KedgePostgres
import KedgeRepository

extension ArchivePush {
    /// What was put off and must be in a repository before `own` is: the history of its timeline, since a twin's
    /// segments would else continue another server's timeline and nobody would see it; and another file of the very
    /// same name, which was acknowledged before. Throws what reading them throws.
    func putOffBefore(_ own: LocalWALFile) throws(KedgeError) -> [LocalWALFile] {
        guard let spool = options.spool else { return [] }
        var files: [LocalWALFile] = []
        for copy in spool.putOff where copy.file == own.file || copy.file == .history(own.file.timeline) {
            do throws(KedgeError) {
                if let local = try read(copy, in: spool, besides: own) { files.append(local) }
            } catch {
                // Nobody knows that it is of this system.
                if copy.system == nil, error.code == .walForeign { continue }
                throw told(error, about: copy.file)
            }
        }
        return files
    }

    /// Stores what `putOffBefore` gave. Throws as `store`.
    func storeFirst(_ local: LocalWALFile, in archive: WALArchive) throws(KedgeError) {
        do throws(KedgeError) {
            _ = try store(local, in: archive, threads: options.threads)
        } catch {
            guard error.code != .interrupted else { throw error }
            throw told(error, about: local.file)
        }
    }

    /// The failure of a file that was put off, as that of the file behind it.
    private func told(_ error: KedgeError, about file: WALFileName) -> KedgeError {
        KedgeError(
            error.code, "could not first store \"\(file.text)\", which was put off: \(error.message)",
            detail: error.detail, hint: error.hint, cause: error.cause)
    }

    /// Stores what was put off while too much waited, and removes it here once every repository has it. Returns what
    /// failed, which is left to the next push and keeps no other file waiting, and which files these archives lack.
    func storePutOff(
        in spool: Spool, besides own: LocalWALFile, _ archives: [WALArchive], isEverywhere: Bool
    ) -> (failures: [KedgeError], waiting: Set<WALFileName>) {
        var failures: [KedgeError] = []
        let system = own.control.systemIdentifier
        let copies = spool.putOff.filter { $0.system ?? system == system }
        var waiting = Set(copies.map(\.file))
        for copy in copies {
            do throws(KedgeError) {
                guard let local = try read(copy, in: spool, besides: own) else { continue }
                for archive in archives { _ = try store(local, in: archive, threads: options.threads) }
                waiting.remove(copy.file)
                if isEverywhere { spool.remove([copy.spoolName], in: .putOff) }
            } catch {
                guard error.code != .interrupted else { break }
                failures.append(error.wrapped("could not store WAL file \"\(copy.file.text)\", which was put off"))
                if error.code.isRetryable { break }
            }
        }
        return (failures, waiting)
    }

    /// A file that was put off, read and checked; nil where it is of another database system than `own`.
    private func read(
        _ copy: PutOffCopy, in spool: Spool, besides own: LocalWALFile
    ) throws(KedgeError) -> LocalWALFile? {
        let system = own.control.systemIdentifier
        if let known = copy.system, known != system { return nil }
        let local = try readChecked(copy.file, at: spool.path(of: copy))
        // The control file was read anew: the server could be another one by now.
        guard local.control.systemIdentifier == system else { return nil }
        // A partial segment says itself whose it is, and was refused if it is another's. A history does not: without a
        // note of its system it is this server's if the server has the very same one.
        if copy.system == nil, local.facts == nil {
            let twin = options.path.parent.appending(copy.file.text)
            guard try FileSystem.exists(twin), try FileDescriptor.openWALFile(twin).holds(local.bytes) else {
                throw KedgeError(
                    .walForeign, "cannot tell which database system the file is of",
                    detail: "An earlier version of kedge put it off in \"\(spool.path(of: copy))\", and pg_wal does "
                        + "not hold the same file.",
                    hint: "If it is this cluster's, run \"kedge archive-push\" with that path in the data directory, "
                        + "and remove the file then.")
            }
        }
        return local
    }
}
