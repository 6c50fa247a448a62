// The bytes of one manifest part (Catalog/FORMAT.md section 5): the one encoder and the one decoder.
//
// Invariants of what the decoder returns: entries in strict path order; safe paths; extents that tile each file; pack
// indexes within the part's list; nothing left over. Everything else is `damaged`.

package import KedgeCore

/// Collects entries, which must come in path order, into the bytes of one part.
package struct ManifestPartEncoder {
    private var entries: [UInt8] = []
    private var packs: [RandomID] = []
    private var packIndexes: [RandomID: UInt64] = [:]
    private var previous: [UInt8] = []
    /// How many entries were added.
    package private(set) var count = 0
    /// The path of the first entry.
    package private(set) var first: ManifestPath?
    /// Raw bytes that the entries refer to, by pack.
    package private(set) var liveBytes: [RandomID: UInt64] = [:]

    package init() {}

    /// About how many bytes the part has so far.
    package var byteCount: Int { entries.count + 16 * packs.count + 21 }

    /// Adds an entry. Its path must follow that of the entry before it.
    package mutating func append(_ entry: ManifestEntry) {
        precondition(count == 0 || ManifestPath(bytes: previous) < entry.path, "manifest entries out of order")
        let path = entry.path.bytes
        var shared = 0
        while shared < path.count, shared < previous.count, path[shared] == previous[shared] { shared += 1 }
        entries.append(varint: UInt64(shared))
        entries.append(varint: UInt64(path.count - shared))
        entries.append(contentsOf: path[shared...])
        entries.append(entry.kind.code)
        entries.append(varint: entry.mode)
        entries.append(varint: zigzag(entry.modificationTime))
        switch entry.kind {
        case .directory: break
        case .symbolicLink(let target):
            entries.append(varint: UInt64(target.count))
            entries.append(contentsOf: target)
        case .file(let content), .extraFile(let content): append(content)
        }
        if first == nil { first = entry.path }
        previous = path
        count += 1
    }

    private mutating func append(_ content: FileContent) {
        entries.append(varint: content.size)
        let allRegions = content.regions.allSatisfy { $0 != nil }
        entries.append((content.identity == nil ? 0 : 1) | (allRegions ? 2 : 0))
        if let identity = content.identity {
            entries.append(varint: identity.inode)
            entries.append(varint: zigzag(identity.birthTime))
        }
        if !allRegions {
            var bits = [UInt8](repeating: 0, count: (content.regions.count + 7) / 8)
            for (index, region) in content.regions.enumerated() where region != nil {
                bits[index / 8] |= 1 << UInt8(index % 8)
            }
            entries.append(contentsOf: bits)
        }
        for region in content.regions { region?.append(to: &entries) }
        entries.append(varint: UInt64(content.extents.count))
        for extent in content.extents {
            entries.append(varint: extent.length)
            switch extent.source {
            case .zeros: entries.append(0)
            case .pack(let pack, let frame, let offset):
                entries.append(varint: index(of: pack))
                entries.append(varint: frame)
                entries.append(varint: offset)
                liveBytes[pack, default: 0] += extent.length
            }
        }
    }

    private mutating func index(of pack: RandomID) -> UInt64 {
        if let index = packIndexes[pack] { return index }
        packs.append(pack)
        packIndexes[pack] = UInt64(packs.count)
        return UInt64(packs.count)
    }

    /// The bytes of the part.
    package func finish() -> [UInt8] {
        var bytes: [UInt8] = [1]
        bytes.reserveCapacity(byteCount)
        bytes.append(varint: UInt64(packs.count))
        for pack in packs { bytes.append(contentsOf: pack.bytes) }
        bytes.append(varint: UInt64(count))
        bytes.append(contentsOf: entries)
        return bytes
    }
}

/// Reads the entries of one part, one at a time.
package struct ManifestPartDecoder {
    private var reader: BinaryReader
    private let packs: [RandomID]
    private var remaining: Int
    private var previous: [UInt8] = []
    private var isFirst = true

    /// A part's most raw bytes.
    package static let maximumBytes = 64 << 20

    /// A decoder of `bytes`, which must outlive it. Throws `damaged`, or `format-unknown`; `what` is named in errors.
    package init(_ bytes: UnsafeRawBufferPointer, what: String) throws(KedgeError) {
        var reader = BinaryReader(bytes, what: what)
        let format = try reader.u8()
        guard format == 1 else {
            throw KedgeError(
                .formatUnknown, "cannot read \(what)", detail: "This kedge does not know its format \(format).",
                hint: "A newer kedge wrote it: use that version or a later one.")
        }
        let packCount = try reader.count(itemBytes: 16)
        var packs: [RandomID] = []
        packs.reserveCapacity(packCount)
        for _ in 0..<packCount {
            guard let id = RandomID(bytes: try reader.bytes(16)) else { throw reader.malformed("a pack id is cut") }
            packs.append(id)
        }
        remaining = try reader.count(itemBytes: 5)
        self.packs = packs
        self.reader = reader
    }

    /// The next entry, or nil after the last. Throws `damaged`, or `unsafe-path` for a path that must not be restored.
    package mutating func next() throws(KedgeError) -> ManifestEntry? {
        guard remaining > 0 else {
            guard reader.remaining == 0 else { throw reader.malformed("bytes follow the last entry") }
            return nil
        }
        remaining -= 1
        let path = try readPath()
        let code = try reader.u8()
        let mode = try reader.varint()
        guard mode <= 0o7777 else { throw reader.malformed("a mode is out of range") }
        let modificationTime = unzigzag(try reader.varint())
        let kind: ManifestEntry.Kind
        switch code {
        case 1: kind = .file(try readContent())
        case 2: kind = .directory
        case 3:
            let target = try reader.bytes(try reader.count())
            guard (1...4096).contains(target.count), !target.contains(0) else {
                throw reader.malformed("the target of a link is empty, too long or holds a zero byte")
            }
            kind = .symbolicLink(Array(target))
        case 4: kind = .extraFile(try readContent())
        default: throw reader.malformed("an entry has the unknown type \(code)")
        }
        guard code == 4 ? path.isSafeAbsolute : path.isSafeRelative else {
            throw KedgeError(
                .unsafePath, "cannot use manifest entry \"\(path)\"",
                detail: "A path in a manifest must stay below the data directory.",
                hint: "Somebody may have tampered with the repository.  Restore from another repository or backup.")
        }
        return ManifestEntry(path: path, mode: UInt32(mode), modificationTime: modificationTime, kind: kind)
    }

    private mutating func readPath() throws(KedgeError) -> ManifestPath {
        let shared = try reader.varint()
        guard shared <= UInt64(previous.count) else { throw reader.malformed("a path shares too many bytes") }
        let rest = try reader.bytes(try reader.count())
        let path = ManifestPath(bytes: Array(previous[..<Int(shared)]) + Array(rest))
        guard isFirst || ManifestPath(bytes: previous) < path else {
            throw reader.malformed("the path \"\(path)\" is out of order")
        }
        isFirst = false
        previous = path.bytes
        return path
    }

    private mutating func readContent() throws(KedgeError) -> FileContent {
        let size = try reader.varint()
        guard size <= FileContent.maximumSize else { throw reader.malformed("a file's size is out of range") }
        let flags = try reader.u8()
        guard flags & ~3 == 0 else { throw reader.malformed("a file has unknown flags") }
        var identity: FileIdentity?
        if flags & 1 != 0 {
            identity = FileIdentity(inode: try reader.varint(), birthTime: unzigzag(try reader.varint()))
        }
        let regions = try readRegions(count: FileContent.regionCount(size: size), allPresent: flags & 2 != 0)
        let extentCount = try reader.count(itemBytes: 2)
        guard extentCount <= FileContent.maximumExtents else { throw reader.malformed("a file has too many extents") }
        var extents: [Extent] = []
        extents.reserveCapacity(extentCount)
        var covered: UInt64 = 0
        for _ in 0..<extentCount {
            let extent = try readExtent()
            guard extent.length > 0, extent.length <= size - covered else {
                throw reader.malformed("the extents of a file do not tile it")
            }
            covered += extent.length
            extents.append(extent)
        }
        guard covered == size else { throw reader.malformed("the extents of a file do not tile it") }
        return FileContent(size: size, identity: identity, regions: regions, extents: extents)
    }

    private mutating func readRegions(count: Int, allPresent: Bool) throws(KedgeError) -> [ContentHash?] {
        // Every region costs at least a bit, so a huge count can't make a small part allocate much.
        guard count / 8 <= reader.remaining else { throw reader.malformed("there are too few bytes for the regions") }
        let bits = allPresent ? nil : Array(try reader.bytes((count + 7) / 8))
        if let last = bits?.last, count % 8 != 0, last >> UInt8(count % 8) != 0 {
            throw reader.malformed("there are checksums of regions that do not exist")
        }
        var regions: [ContentHash?] = []
        regions.reserveCapacity(count)
        for index in 0..<count {
            if let bits, bits[index / 8] & (1 << UInt8(index % 8)) == 0 {
                regions.append(nil)
            } else {
                regions.append(ContentHash(bytes: try reader.bytes(16)))
            }
        }
        return regions
    }

    private mutating func readExtent() throws(KedgeError) -> Extent {
        let length = try reader.varint()
        let pack = try reader.varint()
        guard pack > 0 else { return Extent(length: length, source: .zeros) }
        guard pack <= UInt64(packs.count) else { throw reader.malformed("an extent names a pack that is not listed") }
        let frame = try reader.varint()
        let offset = try reader.varint()
        guard let frame = UInt32(exactly: frame), let offset = UInt32(exactly: offset) else {
            throw reader.malformed("an extent's place is out of range")
        }
        return Extent(length: length, source: .pack(packs[Int(pack) - 1], frame: frame, offset: offset))
    }
}

extension ManifestEntry.Kind {
    fileprivate var code: UInt8 {
        switch self {
        case .file: 1
        case .directory: 2
        case .symbolicLink: 3
        case .extraFile: 4
        }
    }
}

private func zigzag(_ number: Int64) -> UInt64 { UInt64(bitPattern: (number << 1) ^ (number >> 63)) }

private func unzigzag(_ number: UInt64) -> Int64 { Int64(bitPattern: number >> 1) ^ -Int64(bitPattern: number & 1) }
