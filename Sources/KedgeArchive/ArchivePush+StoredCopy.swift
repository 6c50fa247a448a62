// What a repository has under the name of a file that is being pushed: is it the same WAL, and if not, who wrote which?

import KedgeCatalog
import KedgeCodec
import KedgeCore
import KedgePostgres
import KedgeRepository

extension ArchivePush {
    /// Whether the local segment is empty from where its timeline was left on, and equal to the stored one before that:
    /// it holds nothing that the stored one lacks. With `archive_mode = always` a standby archives such a segment, and
    /// the old primary may have archived its own first, which goes on behind the switch point.
    private func isFilledToTheSwitch(
        _ local: LocalWALFile, upTo difference: Int, in archive: WALArchive
    ) throws(KedgeError) -> Bool {
        guard case .segment = local.file, let start = local.facts?.startLSN else { return false }
        return try archive.histories().read.values.contains { history in
            guard let limit = history.limit(of: local.file.timeline), limit > start else { return false }
            let length = limit - start
            return length <= difference && local.bytes[Int(length)...].allSatisfy { $0 == 0 }
        }
    }

    /// What is there under the name is the same WAL, read from the first byte to the last, or the push fails and says
    /// where the two part and who wrote which. Throws `damaged` and its like for a copy that nothing can be restored
    /// from. Memory is that of the object and of one frame.
    func check(
        _ archived: ArchivedFile, in archive: WALArchive, _ local: LocalWALFile, _ facts: WALFileFacts
    ) throws(KedgeError) {
        // Partial segments of different content lie beside each other.
        if let tag = archived.tag, tag != facts.tag, case .partial = local.file { return }
        let name = archive.cluster.name(archived.name)
        let status = try archive.cluster.repository.store.status(of: name)
        let stored = try archive.stream(archived, storedBytes: status?.sizeBytes ?? 0) { _ in }
        guard stored.tag != facts.tag else { return }
        let bytes = try archive.read(archived, threads: options.threads).bytes
        let position = zip(bytes, local.bytes).enumerated().first { $0.element.0 != $0.element.1 }?.offset
        let difference = position ?? min(bytes.count, local.bytes.count)
        guard try !isFilledToTheSwitch(local, upTo: difference, in: archive) else { return }
        let first = WALConflict.Copy(stored, storedAt: status?.modified)
        let second = WALConflict.Copy(facts, storedAt: nil)
        let conflict = WALConflict(
            local.file, first, bytes, second, local.bytes, segmentStart: local.facts?.startLSN)
        let sentences = [
            conflict?.place, WALConflict.sentence("The stored one", first), sentence(about: second, local.path),
            conflict?.explanation("the stored one", "this one"),
        ]
        throw KedgeError(
            .archiveConflict,
            "cannot archive WAL file \"\(local.file.text)\": repository \"\(archive.cluster.repository.name)\" holds "
                + "other content under this name",
            detail: sentences.compactMap { $0 }.joined(separator: "  "),
            hint: (conflict?.hint ?? "") + "  Nothing was changed.")
    }

    private func sentence(about local: WALConflict.Copy, _ path: RawPath) -> String {
        var text = "This one is of host \"\(local.hostName)\""
        do throws(KedgeError) {
            text += ", last changed at \(try FileStatus(at: path, followLinks: true).modified)"
        } catch {
            // It was there a moment ago; what it says is known.
        }
        if let end = local.recordsEnd { text += ", its records end at \(end)" }
        if let time = local.lastEnd { text += ", its last transaction at \(time)" }
        return text + "."
    }
}
