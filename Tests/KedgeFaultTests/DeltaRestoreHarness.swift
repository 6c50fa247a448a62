// A data directory without a server that is restored, damaged in every way that files can be, and put right again with
// --delta; and what must then be there, found out without the product's own comparison.
import Glibc
import KedgeCatalog
import KedgeCore
import KedgeRepository
import KedgeRestore
import KedgeTestSupport
import Testing

/// A repository with one backup, and the place where it is restored.
final class DeltaPlace: Sendable {
    let directory: TemporaryDirectory
    let repository: MemoryRepository
    /// The backup's own files with their content, by path, but for those that a restore changes.
    let files: [String: [UInt8]]

    var target: String { directory("target") }
    var tablespace: String { directory("target-ts") }
    static let version = "PG_15_202209061"

    init(large: Bool = true, inMemory: Bool = false) throws {
        directory = try TemporaryDirectory(inMemory: inMemory)
        for name in ["victim", "work"] { _ = try Directory.create(at: RawPath(directory(name))) }
        var (repository, backup, record) = try HostileManifestTests.repository()
        record.tablespaces = [.init(oid: 16384, path: "/nowhere/else", inPlace: false)]
        func filled(_ regions: Int, _ rest: Int) -> [UInt8] {
            (0..<regions).flatMap { [UInt8](repeating: UInt8($0 + 1), count: 1 << 20) }
                + (0..<rest).map { UInt8(truncatingIfNeeded: $0 &* 7) }
        }
        var files: [String: [UInt8]] = [
            "PG_VERSION": Array("15\n".utf8), "base/1/1259": filled(0, 8192), "base/1/1259_fsm": filled(0, 24576),
            "base/1/2600": [], "base/1/PG_VERSION": Array("15\n".utf8), "base/5/16400": filled(2, 8192),
            "base/5/16400_vm": filled(0, 8192), "global/1262": filled(0, 8192), "pg_xact/0000": filled(0, 8192),
            "pg_tblspc/16384/\(Self.version)/5/16500": filled(1, 16384),
        ]
        if large { files["base/5/16401"] = filled(18, 100) }
        self.files = files
        var entries =
            PaperEntry.minimal() + files.map { PaperEntry($0.key, .file($0.value)) }
            + [
                PaperEntry("pg_tblspc/16384", .link(Array("/nowhere/else".utf8))),
                PaperEntry("postgresql.auto.conf", .file(Array("work_mem = '8MB'\n".utf8))),
            ]
        for path in [
            "base", "base/1", "base/5", "pg_xact", "pg_wal/archive_status", "pg_replslot",
            "pg_tblspc/16384/\(Self.version)", "pg_tblspc/16384/\(Self.version)/5",
        ] {
            entries.append(PaperEntry(path, .directory, mode: 0o700))
        }
        try backup.commit(HostileManifestTests.sorted(entries), as: record)
        self.repository = repository
        try write(directory("victim/file"), Array("untouched".utf8))
        try write(directory("victim/linked"), filled(0, 8192))
    }

    func restore(
        delta: Bool, dryRun: Bool = false, replacing: ReplacedSystem? = nil, configured: Bool = false,
        waldir: String? = nil, request: RestoreRequest = RestoreRequest(target: .immediate),
        unarchived: UnarchivedWALChoice? = .discard, action: TargetAction = .promote, others: [RepositorySource] = []
    ) throws(KedgeError) -> Restore.Outcome {
        var options = Restore.Options(
            clusterName: "main", request: request, pgdata: RawPath(target),
            configuredPgdata: configured ? RawPath(target) : "/nowhere", tablespaces: [16384: RawPath(tablespace)],
            walDirectory: waldir.map { RawPath($0) }, action: action,
            restoreCommand: RestoreCommandLine(words: ["kedge"]), processMax: 2,
            workDirectory: RawPath(directory("work")), isDryRun: dryRun)
        options.isDelta = delta
        options.replacedSystem = replacing
        options.unarchivedWAL = unarchived
        return try Restore(repository.source, options, walSources: [repository.source] + others).run()
    }

    func write(_ path: String, _ bytes: [UInt8]) throws {
        let file = try FileDescriptor.open(RawPath(path), [.write, .create, .truncate], mode: 0o600)
        try file.write(bytes, at: 0)
    }

    func run(_ command: String...) throws {
        let outcome = try Subprocess(command).run()
        try #require(outcome.status.isSuccess, "\(command): \(outcome.errorText)")
    }

    /// Everything below the target and the tablespace, and nothing behind links: kind, mode, names, content.
    func look(besides left: Set<String> = []) throws -> [String: String] {
        var found: [String: String] = [:]
        var rest = [target, tablespace]
        while let path = rest.popLast() {
            for entry in try Directory.entries(at: RawPath(path)) {
                let place = RawPath(path).appending(entry.name)
                let status = try FileStatus(at: place)
                let name = place.description
                if left.contains(String(name.dropFirst(target.utf8.count + 1))) { continue }
                switch entry.kind {
                case .directory:
                    found[name] = "directory \(status.mode)"
                    rest.append(name)
                case .regular:
                    let bytes = try FileDescriptor.open(place, [.read]).readAll(limit: 1 << 28)
                    found[name] = "file \(status.mode) \(bytes.count) \(CRC32C.checksum(bytes)) \(status.linkCount)"
                case .symbolicLink: found[name] = "link \(try FileSystem.symbolicLinkTarget(at: place))"
                case .other: found[name] = "other"
                }
            }
        }
        return found
    }

    /// How many bytes of the backup's files are not there already, by regions.
    func missingBytes() throws -> UInt64 {
        var missing: UInt64 = 0
        for (path, bytes) in files {
            let parts = path.split(separator: "/").map(String.init)
            var place = target
            var isReachable = true
            for (index, part) in parts.enumerated() {
                place += "/" + part
                if parts[0] == "pg_tblspc", index == 1 {
                    place = tablespace
                    continue
                }
                var status = stat()
                let isThere = lstat(place, &status) == 0
                let wanted = index == parts.count - 1 ? S_IFREG : S_IFDIR
                isReachable =
                    isReachable && isThere && status.st_mode & S_IFMT == wanted
                    && (wanted == S_IFDIR || status.st_nlink == 1)
            }
            let found = isReachable ? try FileDescriptor.open(RawPath(place), [.read]).readAll(limit: 1 << 28) : []
            for start in stride(from: 0, to: bytes.count, by: 1 << 20) {
                let end = min(start + 1 << 20, bytes.count)
                if found.count < end || found[start..<end] != bytes[start..<end] { missing += UInt64(end - start) }
            }
        }
        return missing
    }

    // MARK: - Damage

    /// Damages the target in one of many ways. Nothing outside is touched. Returns what was done.
    func damage(_ random: SeededRandom) throws -> String {
        let names = files.keys.sorted()
        let name = names[random.next(below: names.count)]
        let place = name.hasPrefix("pg_tblspc/16384") ? tablespace + name.dropFirst(15) : target + "/" + name
        let parent = String(place[..<(place.lastIndex(of: "/") ?? place.endIndex)])
        var status = stat()
        let isFile = lstat(place, &status) == 0 && status.st_mode & S_IFMT == S_IFREG
        let hasParent = lstat(parent, &status) == 0 && status.st_mode & S_IFMT == S_IFDIR
        switch random.next(below: 17) {
        case 0 where isFile:
            let bytes = try FileDescriptor.open(RawPath(place), [.read]).readAll(limit: 1 << 28)
            guard !bytes.isEmpty else { return "nothing" }
            let offset = random.next(below: bytes.count)
            try FileDescriptor.open(RawPath(place), [.write]).write([bytes[offset] ^ 1], at: UInt64(offset))
        case 1 where isFile: truncate(place, off_t(random.next(below: max(1, (files[name] ?? []).count))))
        case 2 where isFile: truncate(place, off_t((files[name] ?? []).count + 1 + random.next(below: 2 << 20)))
        case 3: try run("rm", "-rf", place)
        case 4 where hasParent:
            try run("rm", "-rf", place)
            symlink(directory("victim/linked"), place)
        case 5 where hasParent:
            try run("rm", "-rf", place)
            try run("mkdir", "-p", place + "/below/deeper")
            try write(place + "/below/file", [1, 2, 3])
        case 6 where hasParent:
            // The very content, but a second name of somebody else's file.
            try run("rm", "-rf", place)
            let other = directory("victim/hard-\(random.next(below: 1 << 30))")
            try write(other, files[name] ?? [])
            link(other, place)
        case 7 where isFile: chmod(place, 0o777)
        case 8: try write(target + "/foreign-\(random.next(below: 100))", random.bytes(100))
        case 9:
            try run("mkdir", "-p", target + "/foreign/a/b/c")
            try write(target + "/foreign/a/b/c/file", random.bytes(10))
            symlink(directory("victim"), target + "/foreign/a/to-victim")
        case 10: symlink(directory("victim"), target + "/pg_tblspc/\(20000 + random.next(below: 9))")
        case 11:
            // A directory that is a link to somewhere else.
            try run("rm", "-rf", target + "/base/1")
            symlink(directory("victim"), target + "/base/1")
        case 12:
            try run("rm", "-rf", target + "/base/5")
            try write(target + "/base/5", [9])
        case 13:
            try write(target + "/pg_wal/000000010000000000000009", random.bytes(64))
            try write(target + "/pg_wal/archive_status/000000010000000000000009.ready", [])
        case 14:
            for leftover in ["recovery.signal", "standby.signal", "postmaster.opts", "tablespace_map"] {
                try write(target + "/" + leftover, random.bytes(5))
            }
        case 15:
            try run("mkdir", "-p", tablespace + "/" + Self.version + "/777")
            try write(tablespace + "/" + Self.version + "/777/16999", random.bytes(5))
        case 16: chmod(target + "/pg_xact", 0o755)
        default: return "nothing"
        }
        return "\(name)"
    }

    /// What lies outside of everything that is restored.
    func beside() throws -> String {
        let found = try Subprocess(["find", directory("victim"), "-type", "f", "-exec", "md5sum", "{}", "+"]).run()
        return found.outputText.split(separator: "\n").sorted().joined(separator: "\n")
    }
}
