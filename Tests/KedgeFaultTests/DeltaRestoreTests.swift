// That `restore --delta` makes of any damaged directory exactly what a fresh restore makes of an empty one, fetches
// only what differs, never touches what lies elsewhere, and can be ended at any system call without leaving anything
// that starts or that a rerun does not put right. Without servers; DeltaRestoreServerTests drive a real one.
import Glibc
import KedgeCatalog
import KedgeCore
import KedgePostgres
import KedgeRepository
import KedgeRestore
import KedgeTestSupport
import Testing

@Suite(.serialized) struct DeltaRestoreTests {
    @Test("generated damage is put right, only what differs is fetched, and nothing elsewhere changes (lesson 16)")
    func generatedDamage() throws {
        let place = try DeltaPlace()
        _ = try place.restore(delta: false)
        let whole = try place.look()
        for round in 0..<(PostgresInstallation.soakIsEnabled ? 300 : 8) {
            let random = SeededRandom(seed: testSeed() &* 1000 &+ UInt64(round))
            let done = try (0...random.next(below: 6)).map { _ in try place.damage(random) }
            let context: Comment = "seed \(testSeed()), round \(round): \(done)"
            let beside = try place.beside()
            let missing = try place.missingBytes()
            let damaged = try place.look()
            let plan = try place.restore(delta: true, dryRun: true)
            #expect(try place.look() == damaged, context)
            let outcome = try place.restore(delta: true)
            #expect(try place.look() == whole, context)
            #expect(try place.beside() == beside, context)
            let delta = try #require(outcome.delta)
            // backup_label is not among the files that the model knows, and is never damaged.
            #expect(delta.fetchedBytes == missing, context)
            #expect(plan.delta?.fetchedBytes == delta.fetchedBytes, context)
            #expect(plan.delta?.removed.files == delta.removed.files, context)
        }
    }

    @Test("a file with a second name elsewhere is made anew and not written through, whether it differs or not")
    func hardLinks() throws {
        let place = try DeltaPlace(large: false)
        _ = try place.restore(delta: false)
        let whole = try place.look()
        for (name, content) in [("base/1/1259", [1, 2, 3]), ("base/5/16400", place.files["base/5/16400"] ?? [])] {
            try place.run("rm", place.target + "/" + name)
            let other = place.directory("victim/of-\(content.count)")
            try place.write(other, content)
            try #require(link(other, place.target + "/" + name) == 0)
        }
        let beside = try place.beside()
        let delta = try #require(try place.restore(delta: true).delta)
        #expect(delta.fetchedBytes == 8192 + (2 << 20) + 8192)
        #expect(try place.look() == whole)
        #expect(try place.beside() == beside)
    }

    @Test("nothing is fetched for a directory that is right, and it stays as it is")
    func nothingToDo() throws {
        let place = try DeltaPlace()
        _ = try place.restore(delta: false)
        let whole = try place.look()
        let delta = try #require(try place.restore(delta: true).delta)
        #expect(delta.fetchedBytes == 0)
        #expect(delta.removed.files == 0)
        let label = try FileStatus(at: RawPath(place.target + "/backup_label")).sizeBytes
        #expect(delta.comparedBytes == place.files.values.reduce(label) { $0 + UInt64($1.count) })
        #expect(try place.look() == whole)
    }

    @Test("a file of the right size and time with other content is found: only checksums count (lessons 4, 5)")
    func sameSizeAndTime() throws {
        let place = try DeltaPlace(large: false)
        _ = try place.restore(delta: false)
        let whole = try place.look()
        let path = RawPath(place.target + "/base/5/16400")
        let status = try FileStatus(at: path)
        let file = try FileDescriptor.open(path, [.write])
        try file.write([99], at: 1 << 20)
        try file.setTimes(nanoseconds: status.modifiedNanoseconds)
        #expect(try place.restore(delta: true).delta?.fetchedBytes == 1 << 20)
        #expect(try place.look() == whole)
    }

    @Test("into an empty or absent directory --delta restores everything")
    func empty() throws {
        let place = try DeltaPlace(large: false)
        let outcome = try place.restore(delta: true)
        #expect(outcome.delta?.fetchedBytes == outcome.totalBytes)
        #expect(outcome.delta?.comparedBytes == 0)
        #expect(access(place.target + "/kedge_restore.json", F_OK) != 0)
    }

    @Test("an extra tree that is deeper than any path is long goes")
    func deepTree() throws {
        let place = try DeltaPlace(large: false)
        _ = try place.restore(delta: false)
        let whole = try place.look()
        let name = RawPath(String(repeating: "x", count: 200))
        var directory = try FileDescriptor.open(RawPath(place.target), [.read, .directory])
        for _ in 0..<60 {
            _ = try FileSystem.makeDirectory(name, in: directory, mode: 0o500 | 0o200)
            directory = try FileDescriptor.open(name, in: directory, [.read, .directory])
        }
        let delta = try #require(try place.restore(delta: true).delta)
        #expect(delta.fetchedBytes == 0)
        #expect(try place.look() == whole)
    }

    // MARK: - Ending at any point

    @Test(
        "ended at any system call, by an error or for ever, nothing unfinished starts, and a rerun completes it",
        .enabled(if: SystemCallFaults.isAvailable, "needs seccomp(2) with user notification"),
        arguments: [false, true])
    func callSweep(_ fresh: Bool) throws {
        let place = try DeltaPlace(large: false, inMemory: true)
        _ = try place.restore(delta: false)
        let kept = UnarchivedWALRestoreTests.segment(8)
        func writeKept() throws {
            try place.run("sh", "-c", "rm -f \(place.target)/pg_wal/0* \(place.target)/pg_wal/archive_status/0*")
            try place.write(place.target + "/pg_wal/" + kept.name, kept.bytes)
            try place.write(place.target + "/pg_wal/archive_status/\(kept.name).ready", [])
        }
        // WAL that only the data directory has is there at every point, and after the rerun.
        if !fresh { try writeKept() }
        let whole = try place.look()
        func prepare() throws -> [String: String] {
            try place.run("rm", "-rf", place.target, place.tablespace)
            guard !fresh else { return [:] }
            _ = try place.restore(delta: false)
            let random = SeededRandom(seed: testSeed())
            for _ in 0..<12 { _ = try place.damage(random) }
            try writeKept()
            return try place.look(besides: Self.marks)
        }
        _ = try prepare()
        let calls = try SystemCallFaults.run({ _ in nil }) { () throws(KedgeError) in
            try place.restore(delta: !fresh, unarchived: .keep)
        }.calls.count
        var tried = 0
        for (number, isForEver) in Self.points(of: calls) {
            let before = try prepare()
            let beside = try place.beside()
            let run = try SystemCallFaults.run({ $0.number == number || isForEver && $0.number > number ? EIO : nil }) {
                () throws(KedgeError) in try place.restore(delta: !fresh, unarchived: .keep)
            }
            guard run.faultCount > 0 else { continue }
            tried += 1
            let context: Comment = "seed \(testSeed()), call \(number) of \(calls), for ever: \(isForEver)"
            if case .success = run.result { Issue.record("\(context): it went on") }
            if !fresh {
                let found = try FileDescriptor.open(RawPath(place.target + "/pg_wal/" + kept.name), [.read])
                #expect(try found.readAll(limit: 1 << 20) == kept.bytes, context)
            }
            try expectSafe(place, before: before, whole, context)
            let outcome = Result { () throws(KedgeError) in try place.restore(delta: true, unarchived: .keep) }
            if case .failure(let error) = outcome { Issue.record("\(context): \(error)") }
            #expect(try place.look() == whole, context)
            #expect(try place.beside() == beside, context)
        }
        #expect(tried > 3)
        print("delta restore sweep, fresh \(fresh): \(tried) points of \(calls) calls, seed \(testSeed())")
    }

    /// What Kedge itself leaves beside a data directory that it has not begun to change.
    private static let marks: Set<String> = ["kedge_restore.json"]

    /// Either no control file is there, or everything is as it was, or everything is done.
    private func expectSafe(
        _ place: DeltaPlace, before: [String: String], _ whole: [String: String], _ context: Comment
    ) throws {
        guard access(place.target + "/global/pg_control", F_OK) == 0 else { return }
        let now = try place.look(besides: Self.marks).filter { !$0.key.contains(".kedge~") }
        #expect(now == before || now == whole, context)
    }

    private static func points(of count: Int) -> [(Int, Bool)] {
        if PostgresInstallation.soakIsEnabled { return (1...count).flatMap { [($0, false), ($0, true)] } }
        let random = SeededRandom(seed: testSeed() &+ UInt64(count))
        // The first and the last calls are those of pg_control.
        var points = Set((1...12).map { $0 } + (count - 8...count).map { $0 })
        while points.count < min(32, count) { points.insert(1 + random.next(below: count)) }
        return points.sorted().map { ($0, random.next(below: 2) == 0) }
    }

    @Test("what fails at the repository leaves nothing that starts, and a rerun completes it")
    func repositoryFailure() throws {
        let place = try DeltaPlace(large: false)
        _ = try place.restore(delta: false)
        let whole = try place.look()
        try place.run("rm", "-rf", place.target + "/base/5")
        for name in place.repository.store.names where name.description.contains("/pack/") {
            let bytes = try #require(place.repository.store.contents[name])
            place.repository.store.damage(name) { $0[$0.count / 3] ^= 1 }
            let error = #expect(throws: KedgeError.self) { _ = try place.restore(delta: true) }
            #expect(error?.code == .damaged)
            place.repository.store.damage(name) { $0 = bytes }
        }
        #expect(access(place.target + "/global/pg_control", F_OK) != 0)
        _ = try place.restore(delta: true)
        #expect(try place.look() == whole)
    }

    // MARK: - Whose directory it is

    @Test("a directory that is no data directory, another system's, or in use is refused, and nothing is changed")
    func refusals() throws {
        let place = try DeltaPlace(large: false)
        _ = try place.restore(delta: false)
        let whole = try place.look()
        func refusal(_ replacing: ReplacedSystem? = nil) throws -> KedgeError? {
            let before = try place.look()
            let error = #expect(throws: KedgeError.self) { _ = try place.restore(delta: true, replacing: replacing) }
            #expect(try place.look() == before)
            return error
        }
        // A postmaster.pid, whoever it names.
        for process in ["1", "2147483646"] {
            try place.write(place.target + "/postmaster.pid", Array("\(process)\n".utf8))
            #expect(try refusal()?.code == .serverRunning)
        }
        try place.run("rm", place.target + "/postmaster.pid")
        // Another system.
        let control = place.target + "/global/pg_control"
        let own = try FileDescriptor.open(RawPath(control), [.read]).readAll(limit: 8192)
        try place.write(control, ArchiveFixture.controlFile(system: SystemIdentifier(8), segmentSize: 1 << 20))
        let path = place.target
        #expect(
            try refusal()?.description == """
                cannot restore into directory "\(path)": it belongs to another database system
                code: not-empty
                detail: It is of system 8, and the backup is of system 7.
                hint: Restore into another directory with "--pgdata".  Only if what is there may be lost: add \
                "--replace-system 8".
                """)
        #expect(try refusal(.unknown)?.code == .notEmpty)
        #expect(try refusal(.system(SystemIdentifier(9)))?.code == .notEmpty)
        _ = try place.restore(delta: true, replacing: .system(SystemIdentifier(8)))
        #expect(try place.look() == whole)
        // A control file that cannot be read, or none.
        try place.write(control, Array(own.dropLast(8000)))
        #expect(try refusal()?.hint?.contains("--replace-system unknown") == true)
        try place.run("rm", control)
        #expect(try refusal(.system(SystemIdentifier(7)))?.hint?.contains("--replace-system unknown") == true)
        _ = try place.restore(delta: true, replacing: .unknown)
        #expect(try place.look() == whole)
        // Nothing that a server has made.
        try place.run("rm", control, place.target + "/PG_VERSION")
        #expect(try refusal(.unknown)?.message.hasSuffix("it is not a PostgreSQL data directory") == true)
    }

    @Test("a tablespace's directory is changed only if the data directory's own link leads there")
    func tablespaces() throws {
        let place = try DeltaPlace(large: false)
        _ = try place.restore(delta: false)
        let whole = try place.look()
        try place.write(place.tablespace + "/other", [1])
        try place.run("mkdir", place.tablespace + "/PG_14_202107181")
        let link = place.target + "/pg_tblspc/16384"
        for target in [nil, place.directory("victim")] {
            try place.run("rm", link)
            if let target { symlink(target, link) }
            let error = #expect(throws: KedgeError.self) { _ = try place.restore(delta: true) }
            #expect(error?.code == .notEmpty)
            #expect(error?.detail?.contains("pg_tblspc/16384") == true)
            if target == nil { symlink("x", link) }
        }
        try place.run("rm", link)
        symlink(place.tablespace, link)
        try place.write(place.tablespace + "/\(DeltaPlace.version)/5/16500", [1])
        _ = try place.restore(delta: true)
        // What is not this version's stays.
        let extra = [place.tablespace + "/other": 1, place.tablespace + "/PG_14_202107181": 1]
        let now = try place.look()
        #expect(now.filter { extra[$0.key] == nil } == whole)
        #expect(now.count == whole.count + 2)
    }

    @Test("pg_wal behind a link stays there only when asked for, and only with WAL in it; old WAL goes (lesson 30)")
    func walDirectory() throws {
        let place = try DeltaPlace(large: false)
        let wal = place.directory("target-wal")
        _ = try place.restore(delta: false, waldir: wal)
        let whole = try place.look()
        let error = #expect(throws: KedgeError.self) { _ = try place.restore(delta: true) }
        #expect(error?.code == .usage)
        #expect(error?.hint?.contains("--waldir \(wal)") == true)
        try place.write(wal + "/000000010000000000000009", [1])
        _ = try place.restore(delta: true, waldir: wal)
        #expect(try Directory.entries(at: RawPath(wal)).map(\.name) == ["archive_status"])
        #expect(try place.look() == whole)
        try place.write(wal + "/thesis.txt", [1])
        let refused = #expect(throws: KedgeError.self) { _ = try place.restore(delta: true, waldir: wal) }
        #expect(refused?.code == .notEmpty)
        #expect(access(wal + "/thesis.txt", F_OK) == 0)
    }

    @Test("a file system's own lost+found, in the data directory, pg_wal or a tablespace, is neither read nor removed")
    func lostAndFound() throws {
        let place = try DeltaPlace(large: false)
        _ = try place.restore(delta: false)
        let whole = try place.look()
        let own = [place.target, place.target + "/pg_wal", place.tablespace].map { $0 + "/lost+found" }
        for path in own {
            try place.run("mkdir", path)
            try place.write(path + "/#12", [1])
            // Root is kept out of nothing; where this is run as somebody else, it is as in real life.
            chmod(path, 0)
        }
        try place.write(place.target + "/base/1/1259", [1])
        _ = try place.restore(delta: true, dryRun: true)
        _ = try place.restore(delta: true)
        for path in own { chmod(path, 0o700) }
        let now = try place.look()
        #expect(now.filter { !$0.key.contains("lost+found") } == whole)
        #expect(now.filter { $0.key.hasSuffix("lost+found/#12") }.count == 3)
    }
}
