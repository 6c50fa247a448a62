// A note that one file of pg_wal is durable in every repository of the configuration.
//
// It is about a file, not about a name: device, inode, size and both times, so that a segment of that name which was
// made anew (a restored or rewound data directory, another cluster, a promoted twin) is another file. It is about
// places: what the configuration says of the repositories, and their ids. And it is not believed for long.
//
// It may be about some of the repositories: then nothing is acknowledged by it, and the segment is not stored ahead in
// those once more.
//
// A change that comes within the resolution of a file's times could leave them as they were. So a file that was changed
// only just before it was read gets no note.

import KedgeCore

/// What identifies a file and its content without reading it.
struct FileIdentity: Hashable, Sendable {
    let device: UInt64
    let inode: UInt64
    let sizeBytes: UInt64
    let modifiedNanoseconds: Int64
    let changedNanoseconds: Int64

    init(_ status: FileStatus) {
        device = status.device
        inode = status.inode
        sizeBytes = status.sizeBytes
        modifiedNanoseconds = status.modifiedNanoseconds
        changedNanoseconds = status.changedNanoseconds
    }

    /// Whether the file was at rest before `moment`, at which its reading began: any later change gives it other times.
    ///
    /// The kernel stamps files with its tick of at most 10 ms; file systems that keep whole seconds, or two (FAT), are
    /// told by times without a fraction.
    func isSettled(at moment: Timestamp) -> Bool {
        let newest = max(modifiedNanoseconds, changedNanoseconds)
        let resolution: Int64 = changedNanoseconds % 1_000_000_000 == 0 ? 2_500_000_000 : 20_000_000
        let (now, overflow) = moment.microseconds.multipliedReportingOverflow(by: 1000)
        let (age, outOfRange) = now.subtractingReportingOverflow(newest)
        return !overflow && !outOfRange && age >= resolution
    }

    var jsonValue: JSONValue {
        [
            "device": .int(device), "inode": .int(inode), "size": .int(sizeBytes),
            "modified": .int(modifiedNanoseconds), "changed": .int(changedNanoseconds),
        ]
    }

    init(_ record: JSONRecord) throws(KedgeError) {
        device = try record.integer("device")
        inode = try record.integer("inode")
        sizeBytes = try record.integer("size")
        modifiedNanoseconds = try record.integer("modified")
        changedNanoseconds = try record.integer("changed")
    }
}

extension Spool {
    /// Whether there is a note that a segment of this name is durable in all of these repositories.
    func hasNote(of name: String, in repositories: Set<String>) -> Bool {
        guard let record = read(name, in: .durable) else { return false }
        do throws(KedgeError) {
            return try repositories.isSubset(of: PushNote(record).copies.map(\.repository))
        } catch {
            return false
        }
    }
}

/// A note: this file is durable in all of these repositories.
struct PushNote: Sendable {
    /// One of the copies.
    struct Copy: Hashable, Sendable {
        /// The name of the configuration section.
        let repository: String
        let repositoryID: RandomID
        /// With its cluster's directory.
        let object: String
        /// The object's size, where the store is looked at before the note is believed.
        let sizeBytes: UInt64?
    }

    let file: String
    let identity: FileIdentity
    let system: SystemIdentifier
    /// What the configuration says of the repositories.
    let destination: String
    let copies: [Copy]
    let notedAt: Timestamp

    /// How long a note is believed: PostgreSQL asks for the segments that were stored ahead within minutes.
    static let validSeconds: Int64 = 3600

    func isValid(at now: Timestamp) -> Bool {
        notedAt <= now && now < notedAt.adding(seconds: PushNote.validSeconds)
    }

    var jsonValue: JSONValue {
        [
            "kedge": "durable", "file": .string(file), "identity": identity.jsonValue,
            "systemIdentifier": .string(system.description), "destination": .string(destination),
            "copies": .array(
                copies.map {
                    [
                        "repository": .string($0.repository), "id": .string($0.repositoryID.hex),
                        "object": .string($0.object), "bytes": $0.sizeBytes.map { JSONValue.int($0) } ?? .null,
                    ]
                }),
            "notedAt": .string(notedAt.description),
        ]
    }

    init(
        file: String, identity: FileIdentity, system: SystemIdentifier, destination: String, copies: [Copy],
        notedAt: Timestamp
    ) {
        self.file = file
        self.identity = identity
        self.system = system
        self.destination = destination
        self.copies = copies
        self.notedAt = notedAt
    }

    init(_ record: JSONRecord) throws(KedgeError) {
        try record.expectType("durable")
        file = try record.string("file")
        identity = try FileIdentity(record.record("identity"))
        system = try record.parsed("systemIdentifier") { SystemIdentifier($0) }
        destination = try record.string("destination")
        copies = try record.map("copies") { (copy) throws(KedgeError) in
            Copy(
                repository: try copy.string("repository"), repositoryID: try copy.parsed("id") { RandomID(hex: $0) },
                object: try copy.string("object"), sizeBytes: try copy.optionalInteger("bytes"))
        }
        notedAt = try record.parsed("notedAt") { Timestamp(record: $0) }
    }
}
