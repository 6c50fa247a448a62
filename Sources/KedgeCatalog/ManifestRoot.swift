// The root of a manifest: where its parts are, and which packs they and their entries refer to.

package import KedgeCore

/// A pack that a backup refers to, and how many raw bytes of it.
package struct PackUse: Hashable, Sendable {
    package let id: RandomID
    package let liveBytes: UInt64

    package init(id: RandomID, liveBytes: UInt64) {
        self.id = id
        self.liveBytes = liveBytes
    }

    package var jsonValue: JSONValue { ["id": .string(id.hex), "liveBytes": .int(liveBytes)] }

    package init(_ record: JSONRecord) throws(KedgeError) {
        id = try record.parsed("id") { RandomID(hex: $0) }
        liveBytes = try record.integer("liveBytes")
    }
}

/// Where one part of a manifest is stored, and what it begins with.
package struct ManifestPartReference: Hashable, Sendable {
    package let first: ManifestPath
    package let entries: UInt64
    package let pack: RandomID
    package let frame: UInt32
    package let offset: UInt32
    /// Raw bytes; at most `ManifestPartDecoder.maximumBytes`.
    package let length: UInt64
    package let checksum: ContentHash

    package init(
        first: ManifestPath, entries: UInt64, pack: RandomID, frame: UInt32, offset: UInt32, length: UInt64,
        checksum: ContentHash
    ) {
        self.first = first
        self.entries = entries
        self.pack = pack
        self.frame = frame
        self.offset = offset
        self.length = length
        self.checksum = checksum
    }

    package var jsonValue: JSONValue {
        [
            "first": .string(first.bytes.hex), "entries": .int(entries), "pack": .string(pack.hex),
            "frame": .int(frame), "offset": .int(offset), "length": .int(length), "checksum": .string(checksum.hex),
        ]
    }

    package init(_ record: JSONRecord) throws(KedgeError) {
        first = ManifestPath(bytes: try record.parsed("first") { [UInt8](hex: $0) })
        entries = try record.integer("entries")
        pack = try record.parsed("pack") { RandomID(hex: $0) }
        frame = try record.integer("frame")
        offset = try record.integer("offset")
        length = try record.integer("length")
        checksum = try record.parsed("checksum") { ContentHash(hex: $0) }
        guard length <= UInt64(ManifestPartDecoder.maximumBytes) else {
            throw record.invalid("length", "is more than a part may have")
        }
        guard entries > 0 else { throw record.invalid("entries", "is 0") }
    }
}

/// The root of a manifest.
package struct ManifestRoot: Hashable, Sendable {
    package var label: Label
    package var files: UInt64
    package var directories: UInt64
    package var links: UInt64
    /// Restored size of all files.
    package var bytes: UInt64
    /// In path order.
    package var parts: [ManifestPartReference]
    /// Sorted by id.
    package var packs: [PackUse]

    package init(
        label: Label, files: UInt64, directories: UInt64, links: UInt64, bytes: UInt64,
        parts: [ManifestPartReference], packs: [PackUse]
    ) {
        self.label = label
        self.files = files
        self.directories = directories
        self.links = links
        self.bytes = bytes
        self.parts = parts
        self.packs = packs
    }

    package var jsonValue: JSONValue {
        [
            "kedge": "manifest", "label": .string(label.text), "regionSize": .int(regionSize),
            "checksum": "xxh3-128", "files": .int(files), "directories": .int(directories), "links": .int(links),
            "bytes": .int(bytes), "parts": .array(parts.map(\.jsonValue)), "packs": .array(packs.map(\.jsonValue)),
        ]
    }

    /// The root that `record` describes. Throws `damaged`, or `format-unknown` for a region size or a checksum that
    /// this kedge does not know.
    package init(_ record: JSONRecord) throws(KedgeError) {
        try record.expectType("manifest")
        label = try record.parsed("label") { Label($0) }
        let foundSize: UInt64 = try record.integer("regionSize")
        let foundChecksum = try record.string("checksum")
        guard foundSize == regionSize, foundChecksum == "xxh3-128" else {
            throw KedgeError(
                .formatUnknown, "cannot read \(record.what)",
                detail: "Its regions have \(foundSize) bytes and the checksum \"\(foundChecksum)\".",
                hint: "Use the kedge version that wrote it, or a newer one.")
        }
        files = try record.integer("files")
        directories = try record.integer("directories")
        links = try record.integer("links")
        bytes = try record.integer("bytes")
        parts = try record.map("parts", ManifestPartReference.init)
        packs = try record.map("packs", PackUse.init)
        let known = Set(packs.map(\.id))
        guard zip(packs, packs.dropFirst()).allSatisfy({ $0.id < $1.id }) else {
            throw record.invalid("packs", "is not sorted")
        }
        guard parts.allSatisfy({ known.contains($0.pack) }) else {
            throw record.invalid("parts", "names a pack that is not listed")
        }
        guard zip(parts, parts.dropFirst()).allSatisfy({ $0.first < $1.first }) else {
            throw record.invalid("parts", "is not in path order")
        }
    }
}
