// PostgreSQL's own `backup_manifest`, so that `pg_verifybackup` can check a restored directory
// (src/backend/backup/backup_manifest.c; the manual, "Backup Manifest Format").
//
// Files come in any order; the last line holds the SHA-256 of every byte before it. Memory does not grow with the
// number of files.

import KedgeCodec
package import KedgeCore

/// Writes a `backup_manifest`.
package final class ServerBackupManifest {
    /// A stretch of WAL that recovery to consistency needs.
    package struct WALRange: Hashable, Sendable {
        package let timeline: TimelineID
        package let start: LSN
        package let end: LSN

        package init(timeline: TimelineID, start: LSN, end: LSN) {
            self.timeline = timeline
            self.start = start
            self.end = end
        }
    }

    private let file: FileDescriptor
    private let hash: SHA256Hasher
    private var pending: [UInt8] = []
    private var offset: UInt64 = 0
    private var isFirst = true

    private static let bufferBytes = 256 << 10

    /// Begins the manifest in `file`, which is empty. From 17 on it names the system.
    package init(
        in file: consuming FileDescriptor, majorVersion: Int, system: SystemIdentifier
    ) throws(KedgeError) {
        self.file = file
        hash = try SHA256Hasher()
        if majorVersion >= 17 {
            append("{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": \(system),\n\"Files\": [")
        } else {
            append("{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [")
        }
    }

    /// Adds one file. `path` is relative to the data directory.
    package func add(
        path: [UInt8], sizeBytes: UInt64, modified: Timestamp, crc32c: UInt32
    ) throws(KedgeError) {
        append(isFirst ? "\n" : ",\n")
        isFirst = false
        if let text = String(validating: path, as: UTF8.self) {
            append("{ \"Path\": \(JSONValue.string(text).compactText), ")
        } else {
            append("{ \"Encoded-Path\": \"\(path.hex)\", ")
        }
        let checksum = withUnsafeBytes(of: crc32c.littleEndian) { Array($0).hex }
        append("\"Size\": \(sizeBytes), \"Last-Modified\": \"\(ServerBackupManifest.text(modified))\", ")
        append("\"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"\(checksum)\" }")
        if pending.count >= ServerBackupManifest.bufferBytes { try flush() }
    }

    /// Writes the end, and makes the file durable. To be called once.
    package func finish(_ ranges: [WALRange]) throws(KedgeError) {
        append("\n],\n\"WAL-Ranges\": [\n")
        let lines = ranges.map { range in
            "{ \"Timeline\": \(range.timeline), \"Start-LSN\": \"\(range.start)\", \"End-LSN\": \"\(range.end)\" }"
        }
        append(lines.joined(separator: ",\n") + "\n],\n")
        try flush()
        let checksum = try hash.finish().hex
        try file.write(Array("\"Manifest-Checksum\": \"\(checksum)\"}\n".utf8), at: offset)
        try file.sync()
    }

    private func append(_ text: String) { pending += Array(text.utf8) }

    private func flush() throws(KedgeError) {
        try hash.update(pending)
        try file.write(pending, at: offset)
        offset += UInt64(pending.count)
        pending.removeAll(keepingCapacity: true)
    }

    /// `2026-11-21 02:00:00 GMT`.
    private static func text(_ time: Timestamp) -> String {
        let whole = Timestamp(secondsSince1970: time.microseconds / 1_000_000)
        return whole.description.dropLast().split(separator: "T").joined(separator: " ") + " GMT"
    }
}
