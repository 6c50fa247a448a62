// Entries in, parts and a root out.
//
// Parts are cut where the entries' paths say so, not by count: a file that comes or goes changes the part it lies in
// and leaves the borders of the others alone. A part that is byte for byte one of the parent's is not stored again but
// referred to where the parent has it, so that a manifest is complete and costs what changed.

package import KedgeCore

/// Where a manifest part was stored.
package struct PartPlace: Hashable, Sendable {
    package let pack: RandomID
    package let frame: UInt32
    package let offset: UInt32

    package init(pack: RandomID, frame: UInt32, offset: UInt32) {
        self.pack = pack
        self.frame = frame
        self.offset = offset
    }
}

/// Writes a manifest: entries in path order, one at a time. Memory is bounded by one part and the list of parts.
package struct ManifestWriter {
    private let label: Label
    private let hash: ([UInt8]) -> ContentHash
    private let store: ([UInt8]) throws(KedgeError) -> PartPlace
    /// The parent's parts by their checksums.
    private let reusable: [ContentHash: ManifestPartReference]
    private var encoder = ManifestPartEncoder()
    private var parts: [ManifestPartReference] = []
    private var liveBytes: [RandomID: UInt64] = [:]
    private var files: UInt64 = 0
    private var extraFiles = 0
    private var directories: UInt64 = 0
    private var links: UInt64 = 0
    private var bytes: UInt64 = 0

    /// A part ends before it grows over this, unless one entry alone does.
    package static let targetPartBytes = 256 << 10

    /// A writer that hands each part's bytes to `store`, which returns where it put them. `hash` computes XXH3-128.
    /// Parts that are among `reusing`, those of the parent's manifest, are referred to and not handed out.
    package init(
        label: Label, reusing parts: [ManifestPartReference] = [], hash: @escaping ([UInt8]) -> ContentHash,
        store: @escaping ([UInt8]) throws(KedgeError) -> PartPlace
    ) {
        self.label = label
        self.hash = hash
        self.store = store
        reusable = Dictionary(parts.map { ($0.checksum, $0) }, uniquingKeysWith: { first, _ in first })
    }

    /// Adds an entry; its path must follow that of the entry before. Throws `not-supported` for what a reader would
    /// refuse, and what storing a part throws.
    package mutating func append(_ entry: ManifestEntry) throws(KedgeError) {
        try requireReadable(entry)
        let wantsCut = entry.path.bytes.withBytes { CRC32C.checksum($0) } % 1024 == 0
        if encoder.count > 0, wantsCut || encoder.byteCount >= Self.targetPartBytes { try cut() }
        let extents = entry.content?.extents.count ?? 0
        guard extents <= FileContent.maximumExtents else {
            throw tooManyPieces(entry.path, "It would have \(extents) extents in the manifest.")
        }
        encoder.append(entry)
        switch entry.kind {
        case .file(let content), .extraFile(let content):
            files += 1
            bytes += content.size
        case .directory: directories += 1
        case .symbolicLink: links += 1
        }
    }

    /// Stores the last part and returns the root.
    package mutating func finish() throws(KedgeError) -> ManifestRoot {
        if encoder.count > 0 { try cut() }
        return ManifestRoot(
            label: label, files: files, directories: directories, links: links, bytes: bytes, parts: parts,
            packs: liveBytes.map { PackUse(id: $0.key, liveBytes: $0.value) }.sorted { $0.id < $1.id })
    }

    private mutating func cut() throws(KedgeError) {
        guard let first = encoder.first else { return }
        let part = encoder.finish()
        guard part.count <= ManifestPartDecoder.maximumBytes else {
            throw tooManyPieces(first, "Its entry in the manifest would have \(part.count) bytes.")
        }
        let checksum = hash(part)
        let place: PartPlace
        if let known = reusable[checksum], known.length == UInt64(part.count), known.first == first,
            known.entries == UInt64(encoder.count)
        {
            place = PartPlace(pack: known.pack, frame: known.frame, offset: known.offset)
        } else {
            place = try store(part)
        }
        parts.append(
            ManifestPartReference(
                first: first, entries: UInt64(encoder.count), pack: place.pack, frame: place.frame,
                offset: place.offset, length: UInt64(part.count), checksum: checksum))
        for (pack, count) in encoder.liveBytes { liveBytes[pack, default: 0] += count }
        liveBytes[place.pack, default: 0] += UInt64(part.count)
        encoder = ManifestPartEncoder()
    }

    /// What a reader refuses is never committed.
    private mutating func requireReadable(_ entry: ManifestEntry) throws(KedgeError) {
        let size = entry.content?.size ?? 0
        var limit = FileContent.maximumSize
        if case .extraFile = entry.kind {
            limit = FileContent.smallFileLimit
            extraFiles += 1
            guard extraFiles <= ManifestEntry.extraFileLimit else {
                throw KedgeError(
                    .notSupported, "cannot back up configuration file \"\(entry.path)\"",
                    detail: "A backup keeps at most \(ManifestEntry.extraFileLimit) from outside the data directory.",
                    hint: "Include fewer files in the server's configuration.")
            }
        } else if entry.path.isSmallFile {
            limit = FileContent.smallFileLimit
        }
        guard size <= limit else { throw FileContent.tooLarge(entry.path, sizeBytes: size, limit: limit) }
    }

    private func tooManyPieces(_ path: ManifestPath, _ detail: String) -> KedgeError {
        KedgeError(
            .notSupported, "cannot back up file \"\(path)\": it is in too many pieces", detail: detail,
            hint: "Move the file out of the data directory if it does not belong to PostgreSQL.")
    }
}
