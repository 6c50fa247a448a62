// The parts of a manifest, and what a restore makes of their entries.
import KedgeCatalog
import KedgeCore
import KedgeRestore
import KedgeTestSupport

extension FuzzTarget {
    static let manifestTargets: [FuzzTarget] = [
        FuzzTarget("manifest-part", seeds: [partSeed]) { (bytes) throws(KedgeError) in
            let entries = try decode(bytes)
            var encoder = ManifestPartEncoder()
            for entry in entries { encoder.append(entry) }
            require(try decode(encoder.finish()) == entries, "a part is written as it was read")
        },
        FuzzTarget("manifest-survey", seeds: [partSeed]) { (bytes) throws(KedgeError) in
            guard let label = Label("20261121T020000Z-full-7k3q") else { return }
            var backup = CommitRecord.sample(label, start: LSN(40), stop: LSN(400))
            backup.tablespaces = [.init(oid: 16384, path: "/ts", inPlace: false)]
            var survey = ManifestSurvey(of: backup, versionDirectory: "PG_15_202209061")
            var directories: Set<ManifestPath> = []
            for entry in try decode(bytes) {
                try survey.add(entry)
                if case .extraFile = entry.kind { continue }
                // What comes through lies below a directory of the manifest's own, or below a tablespace of the backup.
                require(entry.path.isSafeRelative, "no path leaves the data directory")
                let text = entry.path.description
                require(
                    !text.hasPrefix("pg_tblspc/16384/") || text.hasPrefix("pg_tblspc/16384/PG_15_202209061"),
                    "nothing is written beside the version directory of a tablespace")
                require(
                    entry.path.parent.map { directories.contains($0) } ?? true, "nothing is written into the unknown")
                switch entry.kind {
                case .directory: directories.insert(entry.path)
                case .symbolicLink:
                    require(entry.path == ManifestPath("pg_tblspc/16384"), "no link is made but a tablespace's")
                    directories.insert(entry.path)
                case .file, .extraFile: break
                }
            }
            _ = survey.totalBytes
            try survey.finish()
        },
    ]

    private static func decode(_ bytes: [UInt8]) throws(KedgeError) -> [ManifestEntry] {
        try bytes.withBytes { (bytes) throws(KedgeError) in
            var decoder = try ManifestPartDecoder(bytes, what: "part")
            var entries: [ManifestEntry] = []
            while let entry = try decoder.next() { entries.append(entry) }
            return entries
        }
    }

    private static let partSeed: [UInt8] = {
        let pack = RandomID(high: 1, low: 2)
        func file(_ size: UInt64, extents: [Extent]? = nil, regions: [ContentHash?]? = nil) -> FileContent {
            let count = FileContent.regionCount(size: size)
            return FileContent(
                size: size, identity: FileIdentity(inode: 7, birthTime: -1),
                regions: regions ?? [ContentHash?](repeating: ContentHash(high: 1, low: 2), count: count),
                extents: extents
                    ?? (size > 0 ? [Extent(length: size, source: .pack(pack, frame: 0, offset: 5))] : []))
        }
        let large = file(
            3 << 20,
            extents: [
                Extent(length: 1 << 20, source: .zeros),
                Extent(length: 2 << 20, source: .pack(pack, frame: 3, offset: 0)),
            ], regions: [nil, ContentHash(high: 1, low: 2), nil])
        let entries: [(String, ManifestEntry.Kind)] = [
            ("/etc/postgresql/postgresql.conf", .extraFile(file(9))), ("backup_label", .file(file(200))),
            ("base", .directory), ("base/1", .directory), ("base/1/1259", .file(large)), ("global", .directory),
            ("global/pg_control", .file(file(8192))), ("pg_tblspc", .directory),
            ("pg_tblspc/16384", .symbolicLink(Array("/ts".utf8))),
            ("pg_tblspc/16384/PG_15_202209061", .directory), ("pg_wal", .directory),
            ("postgresql.auto.conf", .file(file(0))),
        ]
        var encoder = ManifestPartEncoder()
        for (path, kind) in entries {
            encoder.append(
                ManifestEntry(path: ManifestPath(path), mode: 0o600, modificationTime: 1_795_000_000_000, kind: kind))
        }
        return encoder.finish()
    }()
}
