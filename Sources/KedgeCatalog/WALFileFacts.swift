// What lies sealed ahead of the data of an archived WAL file.

package import KedgeCodec
package import KedgeCore
package import KedgePostgres

/// The facts of one archived WAL file (Catalog/v1/schema/wal-facts.schema.json).
package struct WALFileFacts: Hashable, Sendable {
    package var file: WALFileName
    /// Bytes of the file.
    package var length: UInt64
    /// Identifies the content: two objects of one name are the same WAL exactly if their tags are equal.
    package var tag: ContentHash
    /// Who stored it and when, by that host's clock.
    package var archivedAt: Timestamp
    package var hostName: String
    /// What the walk of the records learned; nil for history files, and where the walk was not understood at all.
    package var segment: WALFacts?

    package init(
        file: WALFileName, length: UInt64, tag: ContentHash, archivedAt: Timestamp, hostName: String,
        segment: WALFacts?
    ) {
        self.file = file
        self.length = length
        self.tag = tag
        self.archivedAt = archivedAt
        self.hostName = hostName
        self.segment = segment
    }

    package var jsonValue: JSONValue {
        [
            "kedge": "wal-facts", "file": .string(file.text), "length": .int(length), "tag": .string(tag.hex),
            "archivedAt": .string(archivedAt.description), "hostName": .string(hostName),
            "segment": segment?.jsonValue ?? .null,
        ]
    }

    /// The facts that `record` describes. Throws `damaged`.
    package init(_ record: JSONRecord) throws(KedgeError) {
        try record.expectType("wal-facts")
        file = try record.parsed("file") { WALFileName($0) }
        length = try record.integer("length")
        tag = try record.parsed("tag") { ContentHash(hex: $0) }
        archivedAt = try record.parsed("archivedAt") { Timestamp(record: $0) }
        hostName = try record.string("hostName")
        if let segment = try record.optionalRecord("segment") { self.segment = try WALFacts(segment) }
    }

    /// The content tag of a WAL file of this cluster: seeded, so that names that carry it tell strangers nothing about
    /// the content.
    package static func tag(of bytes: UnsafeRawBufferPointer, clusterID: RandomID) -> ContentHash {
        ContentHash(of: bytes, seed: clusterID.low)
    }

    /// Makes the same tag of bytes that come in pieces.
    package static func tagHasher(clusterID: RandomID) -> ContentHasher { ContentHasher(seed: clusterID.low) }
}
