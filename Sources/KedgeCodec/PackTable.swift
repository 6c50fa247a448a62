// The table at the end of a pack: each data frame's lengths, and which pieces of which files it holds
// (Catalog/FORMAT.md section 5). It gives every frame's place, and makes an interrupted backup's packs reusable.
package import KedgeCore

/// A piece of a file that lies in a pack's frame.
package struct PackSource: Hashable, Sendable {
    /// As in the manifest: bytes, relative to the data directory unless they begin with `/`.
    package let path: [UInt8]
    package let offset: UInt64
    /// At least 1.
    package let length: UInt64
    /// Of these raw bytes.
    package let checksum: ContentHash

    package init(path: [UInt8], offset: UInt64, length: UInt64, checksum: ContentHash) {
        self.path = path
        self.offset = offset
        self.length = length
        self.checksum = checksum
    }
}

/// A pack's table as it was read.
package struct PackTable: Sendable {
    /// One data frame: its number is its index in `frames`.
    package struct Frame: Hashable, Sendable {
        package let storedLength: UInt32
        package let rawLength: UInt32
        /// Where in `sources` its pieces are, in the order of its raw bytes. Empty for a frame of manifest parts.
        package let sources: Range<Int>
    }

    package private(set) var frames: [Frame] = []
    /// The pieces of all frames; empty where they were not asked for.
    package private(set) var sources: [PackSource] = []

    /// The most raw bytes of a whole table. A writer closes its pack well before.
    package static let maximumBytes = 32 << 20
    /// The most data frames of a pack. A writer's table, closed at 2 MiB, has fewer; in memory a frame takes 32 bytes.
    package static let maximumFrames = 1 << 20
    static let format: UInt8 = 1
    static let maximumPathBytes = 4096
    /// The manifest's limit on the size of a file.
    static let maximumFileBytes: UInt64 = 1 << 40

    /// Decodes a table. Without `keepingSources` they are checked and left out, which saves the memory of their paths.
    /// Throws `damaged`, or `format-unknown`; `what` names the pack.
    package init(decoding bytes: [UInt8], what: String, keepingSources: Bool = true) throws(KedgeError) {
        try bytes.withBytes { bytes throws(KedgeError) in
            var reader = BinaryReader(bytes, what: "table of \(what)")
            try decode(&reader, keepingSources: keepingSources)
        }
    }

    private mutating func decode(_ reader: inout BinaryReader, keepingSources: Bool) throws(KedgeError) {
        let format = try reader.u8()
        guard format == PackTable.format else {
            throw KedgeError(
                .formatUnknown, "cannot read a pack's table", detail: "This kedge does not know its format \(format).",
                hint: "A newer kedge wrote it: use that version or a later one.")
        }
        var path: [UInt8] = []
        let frameCount = try reader.count(itemBytes: 3)
        guard frameCount <= PackTable.maximumFrames else { throw reader.malformed("\(frameCount) frames are too many") }
        frames.reserveCapacity(frameCount)
        for _ in 0..<frameCount {
            let (stored, raw) = (try reader.varint(), try reader.varint())
            guard stored <= raw, raw <= FrameHeader.maximumBytes else {
                throw reader.malformed("a frame of \(raw) bytes is said to be stored in \(stored)")
            }
            let first = sources.count
            var covered: UInt64 = 0
            let sourceCount = try reader.count(itemBytes: 19)
            for _ in 0..<sourceCount {
                let source = try PackTable.decodeSource(&reader, path: &path, atMost: raw - covered)
                covered += source.length
                if keepingSources { sources.append(source) }
            }
            guard sourceCount == 0 || covered == raw else {
                throw reader.malformed("the sources of a frame cover \(covered) of its \(raw) bytes")
            }
            frames.append(
                Frame(
                    storedLength: UInt32(stored), rawLength: UInt32(raw), sources: first..<sources.count))
        }
        guard reader.remaining == 0 else { throw reader.malformed("something follows the last frame") }
    }

    private static func decodeSource(
        _ reader: inout BinaryReader, path: inout [UInt8], atMost limit: UInt64
    ) throws(KedgeError) -> PackSource {
        let pathLength = try reader.count()
        guard pathLength <= maximumPathBytes, pathLength > 0 || !path.isEmpty else {
            throw reader.malformed("a path of \(pathLength) bytes cannot be right")
        }
        if pathLength > 0 { path = Array(try reader.bytes(pathLength)) }
        let (offset, length) = (try reader.varint(), try reader.varint())
        guard length > 0, length <= limit, offset <= maximumFileBytes else {
            throw reader.malformed("a source of \(length) bytes at \(offset) cannot be right")
        }
        guard let checksum = ContentHash(bytes: try reader.bytes(16)) else {
            throw reader.malformed("a checksum is cut")
        }
        return PackSource(path: path, offset: offset, length: length, checksum: checksum)
    }
}

/// Encodes a pack's table while the pack is written.
package struct PackTableBuilder: Sendable {
    private var frameCount: UInt = 0
    private var body: [UInt8] = []
    private var lastPath: [UInt8] = []

    package init() {}

    /// About how long the table is by now.
    package var byteCount: Int { body.count + 11 }

    /// Adds the pack's next data frame; `sources` tile its raw bytes in order, or there are none.
    package mutating func append(storedLength: Int, rawLength: Int, sources: [PackSource]) {
        precondition(storedLength <= rawLength && rawLength <= FrameHeader.maximumBytes)
        precondition(sources.isEmpty || sources.reduce(0) { $0 + $1.length } == UInt64(rawLength))
        frameCount += 1
        body.append(varint: UInt(storedLength))
        body.append(varint: UInt(rawLength))
        body.append(varint: UInt(sources.count))
        for source in sources {
            precondition(!source.path.isEmpty && source.path.count <= PackTable.maximumPathBytes && source.length > 0)
            let isSamePath = source.path == lastPath
            body.append(varint: UInt(isSamePath ? 0 : source.path.count))
            if !isSamePath { body += source.path }
            body.append(varint: source.offset)
            body.append(varint: source.length)
            source.checksum.append(to: &body)
            lastPath = source.path
        }
    }

    /// The table's raw data, to be cut into table frames.
    package func encoded() -> [UInt8] {
        var bytes = [PackTable.format]
        bytes.append(varint: frameCount)
        return bytes + body
    }
}
