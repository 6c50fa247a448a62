// `<segment>.<offset>.backup`: the note that a server archives at the end of each base backup, whoever took it
// (src/backend/access/transam/xlogbackup.c, build_backup_content).
package import KedgeCore

/// What a backup history file says.
package struct BackupHistoryFile: Hashable, Sendable {
    package let startLSN: LSN
    /// The segment that holds `startLSN`.
    package let startFile: String
    package let stopLSN: LSN
    package let checkpointLSN: LSN
    /// The label that the backup was started with; invalid UTF-8 is repaired.
    package let label: String?
    /// On 13 and later; nil where the line is missing.
    package let startTimeline: TimelineID?
    package let stopTimeline: TimelineID?

    /// The largest file that is read.
    package static let maximumFileSize = 64 << 10

    /// Parses the content of the file `name`.
    ///
    /// Lines that are not known are skipped. Throws `walInvalid` where one of the three locations is missing.
    package init(parsing bytes: [UInt8], name: String) throws(KedgeError) {
        func invalid(_ detail: String) -> KedgeError {
            KedgeError(
                .walInvalid, "cannot read backup history file \"\(name)\"", detail: detail,
                hint: "It serves as a note only: nothing is lost with it.")
        }
        guard bytes.count <= BackupHistoryFile.maximumFileSize else { throw invalid("It has \(bytes.count) bytes.") }
        var values: [Substring: Substring] = [:]
        let text = String(decoding: bytes, as: UTF8.self)
        for line in text.split(separator: "\n") {
            guard let colon = line.firstIndex(of: ":") else { continue }
            let value = line[line.index(after: colon)...]
            values[line[..<colon]] = value.first == " " ? value.dropFirst() : value
        }
        func lsn(_ key: String) throws(KedgeError) -> (LSN, rest: Substring) {
            guard let value = values[key[...]], let lsn = LSN(value.prefix { $0 != " " }) else {
                throw invalid("It has no line \"\(key): …\" with an LSN.")
            }
            return (lsn, value.drop { $0 != " " }.dropFirst())
        }
        let start = try lsn("START WAL LOCATION")
        startLSN = start.0
        stopLSN = try lsn("STOP WAL LOCATION").0
        checkpointLSN = try lsn("CHECKPOINT LOCATION").0
        guard start.rest.hasPrefix("(file "), start.rest.hasSuffix(")") else {
            throw invalid("Its start location does not name a WAL file.")
        }
        startFile = String(start.rest.dropFirst("(file ".count).dropLast())
        label = values["LABEL"].map { String($0) }
        startTimeline = values["START TIMELINE"].flatMap { UInt32($0) }.map { TimelineID($0) }
        stopTimeline = values["STOP TIMELINE"].flatMap { UInt32($0) }.map { TimelineID($0) }
    }
}
