// Proves guarantees 8 and 9 of Catalog/THREAT-MODEL.md against whoever holds a key: a restore of a well-sealed but
// hostile backup writes nothing outside its directory, never traps, and takes bounded memory. What is refused leaves
// nothing.
import Glibc
import KedgeCatalog
import KedgeCodec
import KedgeCore
import KedgePostgres
import KedgeRepository
import KedgeRestore
import KedgeTestSupport
import Testing

@Suite struct HostileManifestTests {
    /// A directory with a data directory to be, and things beside it that must stay as they are.
    final class Place {
        let directory: TemporaryDirectory
        var target: RawPath { RawPath(directory("target")) }

        init() throws {
            directory = try TemporaryDirectory()
            for name in ["victim", "work"] { _ = try Directory.create(at: RawPath(directory(name))) }
            _ = try DurableFile.write(
                Array("untouched".utf8), to: RawPath(directory("victim/file")), random: SystemRandomSource())
        }

        /// Everything in the directory but what begins with "target": type, mode, size, time, name.
        func beside() throws -> String {
            let found = try Subprocess([
                "find", directory.path, "-path", directory("target*"), "-prune", "-o", "-path", directory("work"),
                "-prune", "-o", "-printf", "%y %m %s %P %l %T@\\n",
            ]).run()
            try #require(found.status.isSuccess, "\(found.errorText)")
            return found.outputText.split(separator: "\n").filter { !$0.hasPrefix("d") || $0.contains("victim") }
                .sorted()
                .joined(separator: "\n")
        }
    }

    static let label = "20261121T020000Z-full-7k3q"

    /// A repository with segments that make `sample` consistent.
    static func repository() throws -> (repository: MemoryRepository, backup: PaperBackup, record: CommitRecord) {
        let repository = try MemoryRepository(walSegmentSize: 1 << 20)
        let backup = PaperBackup(try repository.cluster())
        try backup.archive(5...7)
        let record = CommitRecord.sample(
            try #require(Label(label)), start: LSN(5 << 20 | 40), stop: LSN(6 << 20 | 312))
        return (repository, backup, record)
    }

    /// Restores into the place, looks that nothing beside it changed, and returns what went wrong.
    static func restore(
        _ repository: MemoryRepository, _ place: Place, tablespaces: [UInt32: RawPath] = [:],
        isConfigured: Bool = false
    ) throws -> KedgeError? {
        let before = try place.beside()
        let options = Restore.Options(
            clusterName: "main", request: RestoreRequest(target: .immediate), pgdata: place.target,
            configuredPgdata: isConfigured ? place.target : "/nowhere", tablespaces: tablespaces,
            restoreCommand: RestoreCommandLine(words: ["kedge"]),
            extraFilesDirectory: RawPath(place.directory("target-extra")), processMax: 2,
            workDirectory: RawPath(place.directory("work")))
        var failure: KedgeError?
        do throws(KedgeError) { _ = try Restore(repository.source, options).run() } catch { failure = error }
        #expect(try place.beside() == before)
        return failure
    }

    static func sorted(_ entries: [PaperEntry]) -> [PaperEntry] { entries.sorted { $0.path < $1.path } }

    @Test("the backup that the others are made from restores")
    func harmless() throws {
        let (repository, backup, record) = try Self.repository()
        try backup.commit(PaperEntry.minimal(), as: record)
        let place = try Place()
        #expect(try Self.restore(repository, place) == nil)
        let control = try FileDescriptor.open(place.target.appending("global/pg_control"), .read).readAll(limit: 8192)
        #expect(try ControlFile(parsing: control).isPoisoned)
    }

    @Test(
        "paths that lead elsewhere are refused, and nothing is written",
        arguments: [
            "../victim/file", "a/../../victim/file", "/victim", "", ".", "..", "a//b", "a/", "./a", "a\0b", "a/..",
            "global/./x", "pg_tblspc/../../victim/x", String(repeating: "x", count: 4097),
        ])
    func paths(_ path: String) throws {
        for kind in [PaperEntry.Kind.file([1]), .directory] {
            let (repository, backup, record) = try Self.repository()
            try backup.commit(Self.sorted(PaperEntry.minimal() + [PaperEntry(path, kind)]), as: record)
            let place = try Place()
            #expect(try Self.restore(repository, place)?.code == .unsafePath, "\(path)")
            #expect(throws: KedgeError.self) { try FileStatus(at: place.target) }
        }
    }

    @Test(
        "extra files stay below the directory that is named for them",
        arguments: ["etc/relative", "/../victim/file", "/etc/../../victim/file", "//x", "/a\0b", "/"])
    func extraPaths(_ path: String) throws {
        let (repository, backup, record) = try Self.repository()
        try backup.commit(Self.sorted(PaperEntry.minimal() + [PaperEntry(path, .extraFile([1]))]), as: record)
        #expect(try Self.restore(repository, try Place())?.code == .unsafePath, "\(path)")
    }

    @Test(
        "links that are no tablespace's are refused: to a place outside, to themselves, in circles",
        arguments: ["base", "pg_wal", "pg_tblspc/16385", "pg_tblspc/016384", "pg_tblspc/x", "pg_tblspc/16384/x"])
    func links(_ path: String) throws {
        let place = try Place()
        for target in [place.directory("victim"), "..", ".", path, "/"] {
            var (repository, backup, record) = try Self.repository()
            record.tablespaces = [.init(oid: 16384, path: RawPath(place.directory("ts")), inPlace: false)]
            var entries = PaperEntry.minimal().filter { $0.path != ManifestPath(path) }
            entries.append(PaperEntry(path, .link(Array(target.utf8))))
            if path.hasPrefix("pg_tblspc/16384/") { entries.append(PaperEntry("pg_tblspc/16384", .link([0x2F]))) }
            entries.append(PaperEntry(path + "/below", .file([1])))
            try backup.commit(Self.sorted(entries), as: record)
            #expect(try Self.restore(repository, place)?.code == .unsafePath, "\(path) -> \(target)")
        }
    }

    @Test("a tablespace's link leads where the user says, whatever target the manifest has")
    func tablespace() throws {
        let place = try Place()
        var (repository, backup, record) = try Self.repository()
        record.tablespaces = [.init(oid: 16384, path: RawPath(place.directory("victim")), inPlace: false)]
        let entries =
            PaperEntry.minimal() + [
                PaperEntry("pg_tblspc/16384", .link(Array(place.directory("victim").utf8))),
                PaperEntry("pg_tblspc/16384/PG_15_202209061", .directory, mode: 0o700),
                PaperEntry("pg_tblspc/16384/PG_15_202209061/file", .file([7])),
            ]
        try backup.commit(Self.sorted(entries), as: record)
        // Unmapped it would go into a directory that holds something.
        #expect(try Self.restore(repository, place)?.code == .notEmpty)
        let mapped = RawPath(place.directory("target-ts"))
        #expect(try Self.restore(repository, place, tablespaces: [16384: mapped]) == nil)
        let written = mapped.appending("PG_15_202209061/file")
        #expect(try FileDescriptor.open(written, .read).readAll(limit: 9) == [7])
    }

    @Test(
        "nothing is written beside the version directory in a tablespace's directory, which may hold anything",
        arguments: ["x", "PG_14_202107181", "file"])
    func besideVersionDirectory(_ name: String) throws {
        for kind in [PaperEntry.Kind.file([1]), .directory] {
            let place = try Place()
            var (repository, backup, record) = try Self.repository()
            // A directory that belongs to somebody else: without a mapping it is what the record says.
            let victim = place.directory("victim")
            record.tablespaces = [.init(oid: 16384, path: RawPath(victim), inPlace: false)]
            let entries =
                PaperEntry.minimal() + [
                    PaperEntry("pg_tblspc/16384", .link(Array(victim.utf8))),
                    PaperEntry("pg_tblspc/16384/\(name)", kind, mode: 0o700),
                ]
            try backup.commit(Self.sorted(entries), as: record)
            #expect(try Self.restore(repository, place, isConfigured: true)?.code == .unsafePath)
            #expect(throws: KedgeError.self) { try FileStatus(at: place.target) }
        }
    }

    @Test(
        "a tablespace whose recorded path does not lead where it seems to is refused until it is mapped",
        arguments: ["relative", "/x/../victim", "/x/./y", "/a\0b", ""])
    func tablespacePaths(_ path: String) throws {
        var (repository, backup, record) = try Self.repository()
        record.tablespaces = [.init(oid: 16384, path: RawPath(path), inPlace: false)]
        try backup.commit(
            Self.sorted(PaperEntry.minimal() + [PaperEntry("pg_tblspc/16384", .link([0x2F]))]), as: record)
        let place = try Place()
        #expect(try Self.restore(repository, place)?.code == .unsafePath, "\(path)")
        #expect(try Self.restore(repository, place, tablespaces: [16384: RawPath(place.directory("target-ts"))]) == nil)
    }

    @Test("files that steer a server never come from the manifest, and none is set-user-ID or writable to all")
    func steeringFiles() throws {
        let (repository, backup, record) = try Self.repository()
        let settings = "restore_command = 'rm -rf /'\nRECOVERY_TARGET_XID='9'\narchive_mode = on\nwork_mem='1MB'\n"
        let planted = ["recovery.signal", "standby.signal", "backup_manifest", "postmaster.pid", "postmaster.opts"]
        let entries =
            PaperEntry.minimal() + planted.map { PaperEntry($0, .file(Array("planted".utf8))) } + [
                PaperEntry("postgresql.auto.conf", .file(Array(settings.utf8))),
                PaperEntry("base", .directory, mode: 0o7777), PaperEntry("base/tool", .file([1]), mode: 0o7755),
            ]
        try backup.commit(Self.sorted(entries), as: record)
        let place = try Place()
        #expect(try Self.restore(repository, place) == nil)
        for name in ["standby.signal", "postmaster.pid", "postmaster.opts"] {
            #expect(throws: KedgeError.self, "\(name)") { try FileStatus(at: place.target.appending(name)) }
        }
        func text(_ name: String) throws -> String {
            let file = try FileDescriptor.open(place.target.appending(name), .read)
            return String(decoding: try file.readAll(limit: 1 << 20), as: UTF8.self)
        }
        #expect(try text("recovery.signal").isEmpty)
        #expect(try !text("backup_manifest").contains("planted"))
        let lines = try text("postgresql.auto.conf").split(separator: "\n")
        #expect(lines.contains("# restore_command = 'rm -rf /'") && lines.contains("# RECOVERY_TARGET_XID='9'"))
        #expect(lines.contains("# archive_mode = on") && lines.contains("work_mem='1MB'"))
        #expect(try FileStatus(at: place.target.appending("base/tool")).mode & 0o7000 == 0)
        #expect(try FileStatus(at: place.target.appending("base")).mode & 0o7000 == 0)
    }

    @Test("tablespace_map is written by the restore alone: an entry of that name is refused")
    func tablespaceMap() throws {
        let (repository, backup, record) = try Self.repository()
        let map = PaperEntry("tablespace_map", .file(Array("16384 /victim\n".utf8)))
        try backup.commit(Self.sorted(PaperEntry.minimal() + [map]), as: record)
        #expect(try Self.restore(repository, try Place())?.code == .unsafePath)
    }

    @Test(
        "a backup that lacks what none does is damage",
        arguments: ["global/pg_control", "backup_label"])
    func lacking(_ path: String) throws {
        let (repository, backup, record) = try Self.repository()
        try backup.commit(PaperEntry.minimal().filter { $0.path != ManifestPath(path) }, as: record)
        #expect(try Self.restore(repository, try Place())?.code == .damaged)
    }

    @Test("a pg_control that is none is refused before a server could start on it")
    func control() throws {
        for bytes in [[], [UInt8](repeating: 0, count: 8192), [UInt8](repeating: 0xFF, count: 8192)] as [[UInt8]] {
            let (repository, backup, record) = try Self.repository()
            var entries = PaperEntry.minimal()
            for index in entries.indices where entries[index].path == ManifestPath("global/pg_control") {
                entries[index].kind = .file(bytes)
            }
            try backup.commit(entries, as: record)
            let place = try Place()
            #expect(try Self.restore(repository, place) != nil)
            #expect(throws: KedgeError.self) { try FileStatus(at: place.target.appending("global/pg_control")) }
        }
    }
}
