// The `backup_manifest` of a restored directory: what was written, as the server's own tools describe it.

import KedgeCatalog
import KedgeCore
import KedgePostgres
import KedgeRepository

extension RestoreWriter {
    /// Writes it, durably. `replaced` has the content of files that are not as they were backed up.
    func writeServerManifest(
        _ directories: PackDirectories, _ checksums: ChecksumList, replaced: [ManifestPath: [UInt8]],
        tablespaceMap: [UInt8]?
    ) throws(KedgeError) {
        let file = try FileDescriptor.open(
            pgdata.appending(RestoreWriter.manifestFile), [.write, .create, .exclusive, .noFollow], mode: 0o600)
        try file.setMode(0o600)
        try owner?.apply(to: file, file.status())
        let manifest = try ServerBackupManifest(
            in: file, majorVersion: majorVersion, system: backup.server.systemIdentifier)
        var reader = ManifestReader(preparation.root, reader: PackReader(directories))
        var number: UInt64 = 0
        while let entry = try reader.next() {
            guard case .file(let content) = entry.kind else { continue }
            defer { number += 1 }
            if RestoreWriter.leftOut.contains(entry.path) { continue }
            let modified = Timestamp(microseconds: entry.modificationTime / 1000)
            if let bytes = replaced[entry.path] {
                try manifest.add(
                    path: entry.path.bytes, sizeBytes: UInt64(bytes.count), modified: modified,
                    crc32c: CRC32C.checksum(bytes))
            } else {
                try manifest.add(
                    path: entry.path.bytes, sizeBytes: content.size, modified: modified,
                    crc32c: try checksums.checksum(of: number))
            }
        }
        if let tablespaceMap {
            try manifest.add(
                path: Array(RestoreWriter.tablespaceMap.utf8), sizeBytes: UInt64(tablespaceMap.count),
                modified: backup.span.stopTime, crc32c: CRC32C.checksum(tablespaceMap))
        }
        try manifest.finish(walRanges)
    }

    /// The WAL that recovery to consistency needs, one stretch for each timeline that it lies on.
    private var walRanges: [ServerBackupManifest.WALRange] {
        var ranges: [ServerBackupManifest.WALRange] = []
        var start = backup.span.startLSN
        for left in backup.span.history where left.switchLSN > start && left.switchLSN < backup.span.stopLSN {
            ranges.append(.init(timeline: left.timeline, start: start, end: left.switchLSN))
            start = left.switchLSN
        }
        ranges.append(.init(timeline: backup.span.timeline, start: start, end: backup.span.stopLSN))
        return ranges
    }
}
