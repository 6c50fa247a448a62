// That a manifest part survives its encoding, and that no bytes whatever make the decoder trap or believe nonsense.

import KedgeCatalog
import KedgeCore
import Testing

@Suite struct ManifestPartTests {
    static let packs = [RandomID(high: 1, low: 2), RandomID(high: 3, low: 4)]

    static let entries: [ManifestEntry] = [
        entry(
            "/etc/postgresql/postgresql.conf",
            .extraFile(content(10, [.init(length: 10, source: .pack(packs[1], frame: 7, offset: 9))]))),
        entry("base", .directory),
        entry("base/1", .directory),
        entry(
            "base/1/1259",
            .file(
                content(
                    3 << 20,
                    [
                        .init(length: 1 << 20, source: .pack(packs[0], frame: 0, offset: 0)),
                        .init(length: 1 << 20, source: .zeros),
                        .init(length: 1 << 20, source: .pack(packs[1], frame: 4_000_000_000, offset: 12)),
                    ]))),
        entry("base/1/empty", .file(content(0, []))),
        entry("base/1-1", .file(content(5, [.init(length: 5, source: .zeros)]))),
        ManifestEntry(
            path: ManifestPath(bytes: [0x66, 0xFF, 0x0A]), mode: 0o600, modificationTime: -1,
            kind: .file(
                FileContent(size: 1, identity: nil, regions: [nil], extents: [.init(length: 1, source: .zeros)]))),
        entry("pg_tblspc/16385", .symbolicLink(Array("/srv/ts".utf8))),
    ]

    static func entry(_ path: String, _ kind: ManifestEntry.Kind) -> ManifestEntry {
        ManifestEntry(path: ManifestPath(path), mode: 0o700, modificationTime: 1_795_000_000_123_456_789, kind: kind)
    }

    static func content(_ size: UInt64, _ extents: [Extent]) -> FileContent {
        let regions = (0..<FileContent.regionCount(size: size)).map {
            $0 == 1 ? nil : ContentHash(high: UInt64($0), low: 5)
        }
        return FileContent(
            size: size, identity: FileIdentity(inode: 42, birthTime: -7), regions: regions, extents: extents)
    }

    static func encoded(_ entries: [ManifestEntry]) -> [UInt8] {
        var encoder = ManifestPartEncoder()
        for entry in entries { encoder.append(entry) }
        return encoder.finish()
    }

    static func decoded(_ bytes: [UInt8]) throws(KedgeError) -> [ManifestEntry] {
        var entries: [ManifestEntry] = []
        try bytes.withBytes { (buffer) throws(KedgeError) in
            var decoder = try ManifestPartDecoder(buffer, what: "manifest part 0")
            while let entry = try decoder.next() { entries.append(entry) }
        }
        return entries
    }

    @Test("a part is decoded to what was encoded")
    func roundTrip() throws {
        #expect(try Self.decoded(Self.encoded(Self.entries)) == Self.entries)
        #expect(try Self.decoded(Self.encoded([])).isEmpty)
    }

    @Test("live bytes count what the extents refer to, by pack")
    func liveBytes() {
        var encoder = ManifestPartEncoder()
        for entry in Self.entries { encoder.append(entry) }
        #expect(encoder.liveBytes == [Self.packs[0]: 1 << 20, Self.packs[1]: 1 << 20 + 10])
    }

    @Test("a part that is cut anywhere is refused")
    func cut() {
        let bytes = Self.encoded(Self.entries)
        for length in 0..<bytes.count {
            #expect(throws: KedgeError.self) { try Self.decoded(Array(bytes[..<length])) }
        }
        #expect(throws: KedgeError.self) { try Self.decoded(bytes + [0]) }
    }

    @Test("a part with any byte changed is read or refused, never trapped on")
    func changedByte() throws {
        let bytes = Self.encoded(Self.entries)
        for index in bytes.indices {
            for value: UInt8 in [0, 1, 0x7F, 0x80, 0xFF, bytes[index] ^ 1] {
                var changed = bytes
                changed[index] = value
                do throws(KedgeError) {
                    for entry in try Self.decoded(changed) {
                        if case .extraFile = entry.kind { continue }
                        #expect(entry.path.isSafeRelative)
                        #expect(entry.content.map { $0.extents.reduce(0) { $0 + $1.length } == $0.size } ?? true)
                    }
                } catch {
                    #expect([.damaged, .unsafePath, .formatUnknown].contains(error.code))
                }
            }
        }
    }

    @Test(
        "a path that could leave the target directory is refused",
        arguments: ["../etc/passwd", "base/../../x", "/etc/passwd", "base//1", "base/./1", "base/", "", "a/.."])
    func unsafePath(_ path: String) {
        let bytes = Self.encoded([Self.entry(path, .directory)])
        #expect(throws: KedgeError.self) { try Self.decoded(bytes) }
        #expect(!ManifestPath(path).isSafeRelative)
    }

    @Test("path order puts all that lies below a directory right after it")
    func pathOrder() {
        let ordered = ["a", "a/b", "a/b/c", "a/b.c", "a-b", "a.b", "ab"].map { ManifestPath($0) }
        #expect(ordered.shuffled().sorted() == ordered)
    }
}
