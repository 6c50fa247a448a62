// Proves that the walk of a directory tree lists exactly what a backup keeps, in path order, and that the list on disk
// gives back what was put in.
import Glibc
import KedgeCatalog
import KedgeCore
import KedgeTestSupport
import Testing

@testable import KedgeBackup

struct FileWalkTests {
    private func paths(_ entries: [ListedEntry]) -> [String] { entries.map(\.path.description) }

    @Test("a whole tree: kept, emptied and left out, in path order")
    func wholeTree() throws {
        let tree = try TestTree()
        for name in ["base/5", "base/5/pgsql_tmp", "pg_replslot/slot", "pg_wal/archive_status", "log", "a"] {
            try tree.makeDirectory("data/" + name)
        }
        for name in [
            "base/5/16384", "base/5/16384.1", "base/5/16385", "base/5/16385_init", "base/5/t2_16390",
            "base/5/pgsql_tmp/pgsql_tmp1.0", "base/5/PG_VERSION", "global/pg_control", "global/1262",
            "pg_replslot/slot/state", "pg_wal/000000010000000000000001", "pg_wal/archive_status/x.ready",
            "log/postgresql.log", "postmaster.pid", "backup_label", "PG_VERSION", "a/x", "a.b", "a-b",
        ] {
            try tree.write("data/" + name)
        }
        let (listing, entries, outcome) = try tree.walk()
        #expect(
            paths(entries) == [
                "PG_VERSION", "a", "a/x", "a-b", "a.b", "base", "base/5", "base/5/16384", "base/5/16384.1",
                "base/5/16385_init", "base/5/PG_VERSION", "global", "global/1262", "global/pg_control", "log",
                "log/postgresql.log", "pg_replslot", "pg_tblspc", "pg_wal", "pg_wal/archive_status",
            ])
        #expect(zip(entries, entries.dropFirst()).allSatisfy { $0.path < $1.path })
        #expect(outcome.warnings.isEmpty)
        #expect(listing.totals.files == 11)
        #expect(listing.totals.bytes == 11)
        #expect(listing.totals.directories == 9)
        let kinds = Dictionary(uniqueKeysWithValues: entries.map { ($0.path.description, $0.kind) })
        #expect(kinds["base/5/16384.1"] == .file(.relation(firstBlock: 2), sizeBytes: 1))
        #expect(kinds["global/pg_control"] == .file(.controlFile, sizeBytes: 1))
        #expect(kinds["base/5/PG_VERSION"] == .file(.whole, sizeBytes: 1))
        #expect(kinds["pg_replslot"] == .directory)
    }

    @Test("names of any bytes and empty files are listed (lesson 49)")
    func strangeNames() throws {
        let tree = try TestTree()
        let strange = RawPath(bytes: [0x20, 0xFF, 0x0A, 0x5C, 0x3D])
        try tree.write(tree.dataDirectory.appending(strange), [])
        let entry = try #require(try tree.walk().entries.first)
        #expect(entry.path.bytes == strange.bytes)
        #expect(entry.kind == .file(.whole, sizeBytes: 0))
    }

    @Test("tablespaces: only our version's directory, below the link; in-place ones as directories (lessons 31, 32)")
    func tablespaces() throws {
        let tree = try TestTree()
        for name in ["one/PG_15_202209061/5", "one/PG_14_202107181/5", "data/pg_tblspc/17000/PG_15_202209061/5"] {
            try tree.makeDirectory(name)
        }
        try tree.write("one/PG_15_202209061/5/16400")
        try tree.write("one/PG_14_202107181/5/16400")
        try tree.write("data/pg_tblspc/17000/PG_15_202209061/5/16401_vm")
        try tree.link("data/pg_tblspc/16500", to: tree.path("one").description)
        let (_, entries, outcome) = try tree.walk()
        #expect(
            paths(entries).filter { $0.hasPrefix("pg_tblspc/") } == [
                "pg_tblspc/16500", "pg_tblspc/16500/PG_15_202209061", "pg_tblspc/16500/PG_15_202209061/5",
                "pg_tblspc/16500/PG_15_202209061/5/16400", "pg_tblspc/17000",
                "pg_tblspc/17000/PG_15_202209061", "pg_tblspc/17000/PG_15_202209061/5",
                "pg_tblspc/17000/PG_15_202209061/5/16401_vm",
            ])
        let link = try #require(entries.first { $0.path.description == "pg_tblspc/16500" })
        #expect(link.kind == .symbolicLink(tree.path("one").bytes))
        #expect(outcome.warningCount == 0)
    }

    @Test("a tablespace whose file system is not mounted is refused: its files would be missing, and nobody would know")
    func unmountedTablespaces() throws {
        for target in ["nowhere", "mountPoint"] {
            let tree = try TestTree()
            try tree.makeDirectory("mountPoint/PG_14_202107181")
            try tree.link("data/pg_tblspc/16999", to: tree.path(target).description)
            let error = #expect(throws: KedgeError.self) { try tree.walk() }
            #expect(error?.code == .notFound, "\(target)")
            #expect(error?.message.hasPrefix("cannot back up tablespace 16999") == true)
            // What the server makes first.
            try tree.makeDirectory("\(target)/PG_15_202209061")
            _ = try tree.walk()
        }
        let inPlace = try TestTree()
        try inPlace.makeDirectory("data/pg_tblspc/17000")
        #expect(throws: KedgeError.self) { try inPlace.walk() }
    }

    @Test("a tablespace that is unmounted while its files are copied fails the backup; one that is dropped does not")
    func unmountedMeanwhile() throws {
        let tree = try TestTree()
        try tree.makeDirectory("one/PG_15_202209061/5")
        try tree.link("data/pg_tblspc/16500", to: tree.path("one").description)
        let tablespaces = try tree.walk().outcome.tablespaces
        let options = FileWalk.Options(
            dataDirectory: tree.dataDirectory, policy: FilePolicy(majorVersion: 15, catalogVersion: 202_209_061),
            relationSegmentBlocks: 2)
        try FileWalk.requireTablespaces(tablespaces, of: options)
        _ = try Subprocess(["mv", tree.path("one").description, tree.path("away").description]).run()
        #expect(throws: KedgeError.self) {
            try FileWalk.requireTablespaces(tablespaces, of: options, time: ManualTime())
        }
        // The server removes the directory first, and the link a moment later.
        let (time, link) = (ManualTime(), tree.path("data/pg_tblspc/16500").description)
        time.onSleep { unlink(link) }
        try FileWalk.requireTablespaces(tablespaces, of: options, time: time)
        #expect(try !FileSystem.exists(RawPath(link)))
    }

    @Test("a file that no restore would take is refused before anything is copied, and one byte less is not")
    func tooLarge() throws {
        for (name, limit) in [("large", FileContent.maximumSize), ("postgresql.auto.conf", 16 << 20)] {
            let tree = try TestTree()
            try tree.write("data/" + name)
            try #require(truncate(tree.path("data/" + name).description, off_t(limit)) == 0)
            #expect(try tree.walk().entries.contains { $0.sizeBytes == limit })
            try #require(truncate(tree.path("data/" + name).description, off_t(limit + 1)) == 0)
            let error = #expect(throws: KedgeError.self) { try tree.walk() }
            #expect(error?.code == .notSupported)
            #expect(error?.message == "cannot back up file \"\(name)\": it is too large")
            #expect(error?.detail?.contains("\(limit + 1) bytes") == true)
        }
    }

    @Test("configuration from outside that no restore would take is left out, with a warning")
    func tooMuchConfiguration() throws {
        let tree = try TestTree()
        try tree.write("large.conf")
        try #require(truncate(tree.path("large.conf").description, 16 << 20 | 1) == 0)
        var files = [tree.path("large.conf")]
        try tree.makeDirectory("conf.d")
        for number in 0...ManifestEntry.extraFileLimit {
            files.append(tree.path("conf.d/\(number + 100_000).conf"))
            try tree.write(files[number + 1], [1])
        }
        let outcome = try tree.walk(configurationFiles: files).outcome
        #expect(outcome.extraFiles.count == ManifestEntry.extraFileLimit)
        #expect(outcome.warningCount == 2)
        #expect(outcome.warnings.first?.contains("101000.conf\" was left out: a backup keeps at most 1000") == true)
        #expect(outcome.warnings.last?.contains("large.conf\" was left out: it has 16777217 bytes") == true)
    }

    @Test("a tablespace inside the data directory, and directories of our own, are listed once and left empty")
    func directoriesInside() throws {
        let tree = try TestTree()
        try tree.makeDirectory("data/space/PG_15_202209061/5")
        try tree.write("data/space/PG_15_202209061/5/16400")
        try tree.makeDirectory("data/kedge/main")
        try tree.write("data/kedge/main/object")
        try tree.link("data/pg_tblspc/16500", to: tree.path("data/space").description)
        let (_, entries, _) = try tree.walk(ownDirectories: [tree.path("data/kedge")])
        let listed = paths(entries)
        #expect(listed.contains("pg_tblspc/16500/PG_15_202209061/5/16400"))
        #expect(listed.contains("space") && !listed.contains { $0.hasPrefix("space/") })
        #expect(listed.contains("kedge") && !listed.contains { $0.hasPrefix("kedge/") })
    }

    @Test("pg_wal behind a link is a directory without WAL; other links are left out with a word (lessons 30, 31)")
    func links() throws {
        let tree = try TestTree()
        try FileSystem.removeDirectory(at: tree.path("data/pg_wal"))
        try tree.makeDirectory("wal/archive_status")
        try tree.write("wal/000000010000000000000001")
        try tree.link("data/pg_wal", to: "../wal")
        try tree.link("data/log", to: "/var/log")
        let (_, entries, outcome) = try tree.walk()
        #expect(paths(entries) == ["base", "global", "pg_tblspc", "pg_wal", "pg_wal/archive_status"])
        #expect(entries.last { $0.path.description == "pg_wal" }?.kind == .directory)
        #expect(
            outcome.warnings == [
                "Symbolic link \"\(tree.path("data/log"))\" was left out: only links of tablespaces are kept."
            ])
    }

    @Test("a link in place of a database's directory is refused")
    func refusedLink() throws {
        let tree = try TestTree()
        try tree.makeDirectory("elsewhere")
        try tree.link("data/base/5", to: tree.path("elsewhere").description)
        let error = #expect(throws: KedgeError.self) { try tree.walk() }
        #expect(error?.code == .notSupported)
        #expect(error?.message == "cannot back up symbolic link \"\(tree.path("data/base/5"))\"")
    }

    @Test("configuration files outside come first, once each; those inside and missing ones do not")
    func extraFiles() throws {
        let tree = try TestTree()
        try tree.makeDirectory("etc")
        try tree.write("etc/pg_hba.conf", [1, 2])
        try tree.write("etc/linked.conf", [3])
        try tree.write("data/inside.conf")
        try tree.link("data/postgresql.conf", to: "../etc/linked.conf")
        let hba = tree.path("etc/pg_hba.conf")
        let (_, entries, outcome) = try tree.walk(configurationFiles: [
            hba, hba, tree.path("data/inside.conf"), tree.path("data/postgresql.conf"), tree.path("etc/missing.conf"),
        ])
        let linked = tree.path("etc/linked.conf")
        #expect(paths(Array(entries.prefix(3))) == [linked.description, hba.description, "base"])
        #expect(outcome.extraFiles == [linked, hba])
        #expect(outcome.warnings.contains { $0.contains("missing.conf") })
        #expect(entries.first?.kind == .extraFile(sizeBytes: 1))
    }

    @Test("many entries are read back in order, across blocks of the list")
    func longListing() throws {
        let tree = try TestTree()
        let listing = try FileListing(in: tree.workDirectory, random: SystemRandomSource())
        let long = String(repeating: "x", count: 4000)
        for number in 0..<1000 {
            let kind: ListedEntry.Kind =
                number.isMultiple(of: 2)
                ? .symbolicLink(Array(long.utf8)) : .file(.relation(firstBlock: .max), sizeBytes: UInt64(number))
            try listing.append(
                ListedEntry(
                    path: ManifestPath("\(long)\(number)"), mode: 0o7777, modificationTime: -1 - Int64(number),
                    kind: kind))
        }
        var count = 0
        try listing.forEach { index, entry throws(KedgeError) in
            #expect(entry.path == ManifestPath("\(long)\(index)"))
            #expect(entry.modificationTime == -1 - Int64(index))
            #expect(entry.sizeBytes == (index.isMultiple(of: 2) ? nil : index))
            count += 1
        }
        #expect(count == 1000)
    }
}
