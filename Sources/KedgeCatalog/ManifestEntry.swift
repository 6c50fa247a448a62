// What a manifest says of one file, directory or link (Catalog/FORMAT.md section 5).

package import KedgeCore

/// The size of a region: the unit in which content is identified.
package let regionSize: UInt64 = 1 << 20

/// The path of a file in a backup: bytes, relative to the data directory, or absolute for an extra file.
package struct ManifestPath: Hashable, Sendable {
    package let bytes: [UInt8]

    package init(bytes: [UInt8]) { self.bytes = bytes }
    package init(_ text: String) { bytes = Array(text.utf8) }

    /// Whether the path is safe to create below a data directory: 1 to 4096 bytes, relative, no zero byte, no empty,
    /// `.` or `..` component.
    package var isSafeRelative: Bool {
        guard (1...4096).contains(bytes.count), bytes[0] != 0x2F, !bytes.contains(0) else { return false }
        return bytes.split(separator: 0x2F, omittingEmptySubsequences: false).allSatisfy {
            !$0.isEmpty && !$0.elementsEqual([0x2E]) && !$0.elementsEqual([0x2E, 0x2E])
        }
    }

    /// Whether the path can be that of an extra file: absolute, and safe below the root directory.
    package var isSafeAbsolute: Bool {
        bytes.first == 0x2F && ManifestPath(bytes: Array(bytes.dropFirst())).isSafeRelative
    }

    /// The path of the directory that holds it; nil at the top.
    package var parent: ManifestPath? {
        bytes.lastIndex(of: 0x2F).map { ManifestPath(bytes: Array(bytes[..<$0])) }
    }

    /// The last component.
    package var name: ArraySlice<UInt8> {
        bytes.lastIndex(of: 0x2F).map { bytes[($0 + 1)...] } ?? bytes[...]
    }

    /// Whether this is `prefix` itself or lies below it.
    package func isAtOrBelow(_ prefix: String) -> Bool {
        bytes.starts(with: prefix.utf8) && (bytes.count == prefix.utf8.count || bytes[prefix.utf8.count] == 0x2F)
    }
}

extension ManifestPath: Comparable {
    /// Path order: byte by byte, where `/` counts as lower than any other byte, so that a directory is followed by all
    /// that lies below it.
    package static func < (left: ManifestPath, right: ManifestPath) -> Bool {
        func rank(_ byte: UInt8) -> UInt8 { byte == 0x2F ? 0 : byte }
        for (a, b) in zip(left.bytes, right.bytes) where a != b { return rank(a) < rank(b) }
        return left.bytes.count < right.bytes.count
    }
}

extension ManifestPath: CustomStringConvertible {
    /// The path as text; bytes that are not UTF-8 appear as replacement characters.
    package var description: String { String(decoding: bytes, as: UTF8.self) }

    /// The path in a record: text where it is UTF-8, otherwise `{"hex":"…"}`.
    package var jsonValue: JSONValue { RawPath(bytes: bytes).jsonValue }

    /// The path that `jsonValue` wrote. Throws `damaged`; `record` is named in the message.
    package init(_ value: JSONValue, in record: JSONRecord, key: String) throws(KedgeError) {
        self.init(bytes: try RawPath(value, in: record, key: key).bytes)
    }
}

extension RawPath {
    /// The path in a record: text where it is UTF-8, otherwise `{"hex":"…"}`.
    package var jsonValue: JSONValue { text.map(JSONValue.string) ?? ["hex": .string(bytes.hex)] }

    /// The path that `jsonValue` wrote. Throws `damaged`; `record` is named in the message.
    fileprivate init(_ value: JSONValue, in record: JSONRecord, key: String) throws(KedgeError) {
        if case .string(let text) = value {
            self.init(text)
            return
        }
        let hex = try JSONRecord(value, what: record.what).string("hex")
        guard let bytes = [UInt8](hex: hex) else { throw record.invalid(key, "is not a path") }
        self.init(bytes: bytes)
    }
}

extension JSONRecord {
    /// The path of this key. Throws `damaged` where it is missing or something else.
    package func path(_ key: String) throws(KedgeError) -> RawPath {
        guard let path = try optionalPath(key) else { throw invalid(key, "is missing") }
        return path
    }

    /// The path of this key; nil where it is missing or null. Throws `damaged` for something else.
    func optionalPath(_ key: String) throws(KedgeError) -> RawPath? {
        guard let value = value(key), value != .null else { return nil }
        return try RawPath(value, in: self, key: key)
    }

    /// The paths of the array of this key. Throws `damaged` for anything else.
    package func paths(_ key: String) throws(KedgeError) -> [RawPath] {
        var paths: [RawPath] = []
        for value in try array(key) { paths.append(try RawPath(value, in: self, key: key)) }
        return paths
    }
}

/// A run of bytes of a file, and where they are.
package struct Extent: Hashable, Sendable {
    /// How many bytes of the file; at least 1.
    package var length: UInt64
    package var source: Source

    package enum Source: Hashable, Sendable {
        /// Zero bytes, stored nowhere.
        case zeros
        /// A run of a pack's stream, from `offset` in the raw data of frame `frame` on, into the following frames.
        case pack(RandomID, frame: UInt32, offset: UInt32)
    }

    package init(length: UInt64, source: Source) {
        self.length = length
        self.source = source
    }
}

/// What a backup knows of one file's content.
package struct FileContent: Hashable, Sendable {
    /// The size in bytes as restored; at most 2^40.
    package var size: UInt64
    /// Which file on the server's disk this was; nil where the file system does not tell.
    package var identity: FileIdentity?
    /// The checksum of each region as restored; nil for a region that was not read.
    package var regions: [ContentHash?]
    /// Tiles the file: the lengths add up to `size`.
    package var extents: [Extent]

    package init(size: UInt64, identity: FileIdentity?, regions: [ContentHash?], extents: [Extent]) {
        self.size = size
        self.identity = identity
        self.regions = regions
        self.extents = extents
    }

    package static let maximumSize: UInt64 = 1 << 40
    /// The most bytes of a file that a restore holds in memory as a whole: an extra file, or what it rewrites.
    package static let smallFileLimit: UInt64 = 16 << 20
    /// How many extents a file has at most: in memory one takes 40 bytes, in a part only two.
    package static let maximumExtents = 1 << 21

    /// The error for a file that a backup cannot hold.
    package static func tooLarge(_ path: ManifestPath, sizeBytes: UInt64, limit: UInt64) -> KedgeError {
        KedgeError(
            .notSupported, "cannot back up file \"\(path)\": it is too large",
            detail: "It has \(sizeBytes) bytes, and a backup can hold at most \(limit) of a file of this kind.",
            hint: limit == maximumSize
                ? "Move the file out of the data directory if it does not belong to PostgreSQL."
                : "Find out what has made it so large: a server's configuration takes a few kilobytes.")
    }

    /// How many regions a file of `size` bytes has.
    package static func regionCount(size: UInt64) -> Int { Int((size + regionSize - 1) / regionSize) }
}

/// Inode and birth time: a file that was made anew is never taken for its predecessor of the same name.
package struct FileIdentity: Hashable, Sendable {
    package let inode: UInt64
    /// Nanoseconds since 1970; 0 where the file system does not keep it.
    package let birthTime: Int64

    package init(inode: UInt64, birthTime: Int64) {
        self.inode = inode
        self.birthTime = birthTime
    }
}

extension ManifestPath {
    /// Whether a restore holds the file of this path in memory as a whole.
    package var isSmallFile: Bool { ManifestPath.smallFiles.contains(self) }

    private static let smallFiles: Set<ManifestPath> = [
        ManifestPath("global/pg_control"), ManifestPath("backup_label"), ManifestPath("postgresql.auto.conf"),
    ]
}

/// One entry of a manifest.
package struct ManifestEntry: Hashable, Sendable {
    package var path: ManifestPath
    /// Permission bits, at most 0o7777.
    package var mode: UInt32
    /// Nanoseconds since 1970.
    package var modificationTime: Int64
    package var kind: Kind

    /// How many extra files a backup has at most: a server reads a handful.
    package static let extraFileLimit = 1000

    package enum Kind: Hashable, Sendable {
        case file(FileContent)
        case directory
        /// The target as the link held it.
        case symbolicLink([UInt8])
        /// A configuration file from outside the data directory.
        case extraFile(FileContent)
    }

    package init(path: ManifestPath, mode: UInt32, modificationTime: Int64, kind: Kind) {
        self.path = path
        self.mode = mode
        self.modificationTime = modificationTime
        self.kind = kind
    }

    /// The content of a file or an extra file.
    package var content: FileContent? {
        switch kind {
        case .file(let content), .extraFile(let content): content
        case .directory, .symbolicLink: nil
        }
    }
}
