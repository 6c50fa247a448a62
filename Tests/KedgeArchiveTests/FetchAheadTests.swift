// That segments are fetched ahead for one run of one server, that what comes from the spool is what the repository
// would have given, cut as the server's history says, and that nothing is ever called absent from there.
import Glibc
import KedgeCodec
import KedgeCore
import KedgePostgres
import KedgeRepository
import KedgeTestSupport
import Testing

@testable import KedgeArchive

@Suite struct FetchAheadTests {
    let fixture: ArchiveFixture
    let store = MemoryStore()
    let counting: FaultyStore
    let source: RepositorySource
    let names: [String]
    let spool: Spool
    let time = ManualTime()

    init() throws {
        fixture = try ArchiveFixture()
        let secret = KeyEncryptionSecret.newKeyFile(random: SystemRandomSource())
        _ = try fixture.makeRepository(in: store, secret: secret)
        counting = FaultyStore(store) { _ in nil }
        source = ArchiveFixture.source(counting, secret: secret)
        names = try fixture.writeSegments(count: 6)
        var harness = SpoolHarness(fixture, source)
        harness.ahead.segments = 0
        for name in names { _ = try harness.push(name) }
        try harness.spool.removeAll()
        spool = harness.spool
        try fixture.write("postmaster.pid", Array("4711\n/data\n1795000000\n5432\n".utf8))
    }

    func failure(_ body: () throws -> Void) -> KedgeError? { #expect(throws: KedgeError.self) { try body() } }

    func copies(_ destination: String = "main") throws -> FetchedCopies {
        let server = RecoveringServer(dataDirectory: fixture.path("."), destination: destination, time: time)
        return FetchedCopies(for: try #require(server), in: spool, time: time)
    }

    func fetchAhead(_ copies: FetchedCopies, segments: Int = 4, from sources: RepositorySource...) -> FetchAhead {
        FetchAhead(
            FetchAhead.Options(
                clusterName: "main", repositories: sources.isEmpty ? [source] : sources, destination: "main",
                segments: segments, inFlight: 2),
            into: copies, random: SystemRandomSource(), time: time, interruption: Interruption())
    }

    /// What archive-get makes of the spool alone; nil where it would ask the repositories.
    func get(
        _ name: String, _ copies: FetchedCopies, followed: TimelineHistory? = nil, to destination: RawPath? = nil
    ) throws(KedgeError) -> ArchiveGet.Outcome? {
        var options = ArchiveGet.Options(
            fileName: name, destination: destination ?? fixture.path("fetched"), clusterName: "main",
            dataDirectory: fixture.path("."), repositories: [], threads: 1, timeoutNanoseconds: 0, followed: followed)
        options.fetchedAhead = copies
        return try ArchiveGet(options, random: SystemRandomSource(), time: time, interruption: Interruption())
            .runFromSpool()
    }

    func local(_ name: String) throws -> [UInt8] {
        try FileDescriptor.open(fixture.path("pg_wal/" + name), .read).readAll(limit: 1 << 30)
    }

    func fetched() throws -> [UInt8] { try FileDescriptor.open(fixture.path("fetched"), .read).readAll(limit: 1 << 30) }

    /// Fetches ahead of the first segment, and leaves it in the spool.
    func fill() throws -> FetchedCopies {
        let copies = try copies()
        try fetchAhead(copies).runOnce(behind: names[0])
        return copies
    }

    @Test("what the server asks for next is there, byte for byte, and no repository is asked")
    func next() throws {
        let copies = try fill()
        let before = counting.operations.count
        for name in names[1...4] {
            #expect(try get(name, copies) == .fetchedAhead(repository: "main"))
            #expect(try fetched() == local(name))
        }
        // Not asked for ahead, never there, and no segment at all: the repositories are asked.
        for name in [names[5], names[0], "000000010000000000000099", "00000002.history"] {
            #expect(try get(name, copies) == nil, "\(name)")
        }
        #expect(counting.operations.count == before)
    }

    @Test("one process follows the server to the end of the archive, asks for nothing twice, and removes what it made")
    func follow() throws {
        let copies = try copies()
        try copies.noteAsked(names[0])
        let (names, spool, fixture) = (names, spool, fixture)
        let position = Monitor(0)
        let counts = Monitor<[Int]>([])
        let (counting, store) = (counting, store)
        time.onSleep {
            let number = position.update { number in
                number += 1
                return number
            }
            counts.update { $0.append(counting.operations.count) }
            guard number < names.count else { return }
            // The server gets the next one while nothing can be reached.
            store.setReachable(false)
            #expect(throws: Never.self) {
                #expect(try get(names[number], copies) == .fetchedAhead(repository: "main"))
                try copies.noteAsked(names[number])
            }
            store.setReachable(true)
        }
        #expect(try fetchAhead(copies, segments: 2).run() == 5)
        // After the last one it asks once for what is behind it, and then only waits.
        let tail = counts.update { Array($0.dropFirst(names.count + 1)) }
        #expect(tail.count > 100 && Set(tail).count == 1)
        #expect(try !FileSystem.exists(spool.directory.appending("fetched/\(copies.server.id)")))
        #expect(try FileSystem.exists(fixture.path("fetched")))
    }

    @Test("the note of what the server asked for is written over, and one that is torn ends nothing")
    func tornNote() throws {
        let copies = try copies()
        let path = copies.directory.appending("asked")
        try copies.noteAsked(names[0])
        let inode = try FileStatus(at: path).inode
        let (names, position) = (names, Monitor(0))
        time.onSleep {
            let number = position.update { number in
                number += 1
                return number
            }
            #expect(throws: Never.self) {
                if number == 1 {
                    try FileDescriptor.open(path, .write).write(Array("{\"kedge\":\"asked\",\"file\":\"00".utf8), at: 0)
                    try FileDescriptor.open(path, .write).truncate(to: 30)
                    #expect(copies.asked() == nil)
                } else if number == 2 {
                    try copies.noteAsked(names[2])
                    #expect(copies.asked()?.fileName(segmentSize: 1 << 20) == names[2])
                    #expect(try FileStatus(at: path).inode == inode)
                }
            }
        }
        #expect(try fetchAhead(copies, segments: 2).run() == 4)
    }

    @Test("no copy answers for another run of the server, another system or other repositories (lesson 28)")
    func otherRun() throws {
        let copies = try fill()
        #expect(try get(names[1], copies) != nil)
        #expect(try get(names[2], self.copies("another bucket")) == nil)
        try fixture.write("postmaster.pid", Array("4711\n/data\n1795000001\n5432\n".utf8))
        #expect(try get(names[2], self.copies()) == nil)
        try fixture.write("postmaster.pid", Array("4711\n/data\n1795000000\n5433 ready\n".utf8))
        #expect(try get(names[2], self.copies()) != nil)
        #expect(try FileSystem.exists(copies.directory.appending(names[3])))
        try fixture.write(
            "global/pg_control", ArchiveFixture.controlFile(system: SystemIdentifier(99), segmentSize: 1 << 20))
        #expect(try get(names[3], self.copies()) == nil)
        try FileSystem.removeFile(at: fixture.path("postmaster.pid"))
        #expect(RecoveringServer(dataDirectory: fixture.path("."), destination: "main", time: time) == nil)
    }

    @Test("a copy that is damaged anywhere, cut, too long, misnamed or old is not used")
    func damaged() throws {
        let copies = try fill()
        let directory = spool.directory.appending("fetched/\(copies.server.id)")
        let whole = try FileDescriptor.open(directory.appending(names[1]), .read).readAll(limit: 1 << 30)
        func attempt(_ bytes: [UInt8], _ what: String, as name: String? = nil) throws {
            let path = directory.appending(name ?? names[1])
            let file = try FileDescriptor.open(path, [.read, .write, .create])
            try file.truncate(to: 0)
            try file.write(bytes, at: 0)
            #expect(try get(name ?? names[1], copies) == nil, "\(what)")
        }
        let random = SeededRandom(seed: testSeed())
        let end = whole.count - FetchedCopy.recordBytes
        let text = end..<(whole[end...].firstIndex(of: 0) ?? end)
        #expect(text.count > 200)
        for index in Array(text) + (0..<40).map({ _ in random.next(below: end) }) + [0, end - 1] {
            var changed = whole
            changed[index] ^= UInt8(1 + random.next(below: 255))
            try attempt(changed, "byte \(index)")
        }
        for length in [0, 100, 4096, end - 1, end, end + 100, whole.count - 1] {
            try attempt(Array(whole[..<length]), "\(length)")
        }
        try attempt(whole + [0], "longer")
        try attempt(whole, "misnamed", as: names[5])
        try FileDescriptor.open(directory.appending(names[1]), [.read, .write, .create]).write(whole, at: 0)
        #expect(try get(names[1], copies) != nil)
        let now = time.now()
        time.set(now.adding(seconds: -1))
        #expect(try get(names[2], copies) == nil)
        time.set(now.adding(seconds: 300))
        #expect(try get(names[3], copies) == nil)
    }

    @Test("what lies behind a switch point is cut or left out when it is used, whatever was known when it was fetched")
    func switchPoint() throws {
        let copies = try fill()
        // Segment 6 has LSN 0/600000 to 0/6FFFFF.
        let history = try TimelineHistory(parsing: Array("1\t0/680000\tno reason\n".utf8), timeline: TimelineID(2))
        #expect(try get(names[1], copies, followed: history) == .fetchedAhead(repository: "main"))
        let bytes = try local(names[1])
        #expect(try fetched() == bytes[..<0x80000] + [UInt8](repeating: 0, count: 0x80000))
        #expect(try get(names[2], copies, followed: history) == nil)
        #expect(try get(names[1], copies) == .fetchedAhead(repository: "main"))
        #expect(try fetched() == bytes)
    }

    @Test("a repository that is away does not hold up what another one has (decision 22)", arguments: [false, true])
    func firstIsAway(_ onlyLater: Bool) throws {
        let copies = try copies()
        let isAway = Monitor(!onlyLater)
        let error = KedgeError(.repositoryUnavailable, "it is away", hint: "Wait.")
        let faulty = FaultyStore(store, code: .repositoryUnavailable) { operation in
            // Opening reads no WAL.
            if onlyLater, operation.name.contains("/wal/") { isAway.update { $0 = true } }
            return isAway.update { $0 } ? .failBefore : nil
        }
        let patient = RepositorySource(
            settings: source.settings, openStore: { () throws(KedgeError) in throw error },
            createStore: { () throws(KedgeError) in throw error })
        var away = patient
        away.openHastyStore = { () throws(KedgeError) in faulty }
        try fetchAhead(copies, from: away, source).runOnce(behind: names[0])
        for name in names[1...4] { #expect(try get(name, copies) == .fetchedAhead(repository: "main")) }
        #expect(isAway.update { $0 })
    }

    @Test("a copy goes to the server as it is where the file system allows it, and as bytes elsewhere")
    func handedOver() throws {
        let copies = try fill()
        // Somebody else's file has the name.
        try fixture.write("fetched", Array("old".utf8))
        let place = copies.directory.appending(names[1])
        let inode = try FileStatus(at: place).inode
        #expect(try get(names[1], copies) == .fetchedAhead(repository: "main"))
        let moved = try FileStatus(at: fixture.path("fetched"))
        #expect(moved.inode == inode && moved.mode & 0o777 == 0o600 && moved.linkCount == 1)
        #expect(try fetched() == local(names[1]))
        // It is gone from the spool, which says that the server has got it.
        #expect(try !FileSystem.exists(place) && get(names[1], copies) == nil)
        #expect(copies.asked()?.fileName(segmentSize: 1 << 20) == names[1])
        let other = try TemporaryDirectory(inMemory: true)
        let device = try FileStatus(at: RawPath(other.path)).device
        guard try FileStatus(at: copies.directory).device != device else { return }
        let away = RawPath(other.path + "/fetched")
        #expect(try get(names[2], copies, to: away) == .fetchedAhead(repository: "main"))
        let bytes = try FileDescriptor.open(away, .read).readAll(limit: 1 << 30)
        #expect(try bytes == local(names[2]))
        #expect(try FileSystem.exists(copies.directory.appending(names[2])))
    }

    @Test("a copy whose name another file takes meanwhile is not moved: its own bytes are still to be had")
    func replacedMeanwhile() throws {
        let copies = try fill()
        let copy = try #require(copies.find(names[1]))
        let place = copies.directory.appending(names[1])
        try FileSystem.removeFile(at: place)
        try FileDescriptor.open(place, [.write, .create, .exclusive], mode: 0o600).write(Array("other".utf8), at: 0)
        let target = try FileDescriptor.open(fixture.path("pg_wal"), [.read, .directory])
        #expect(try !copy.move(to: "RECOVERYXLOG", in: target) { _ in })
        #expect(try copy.bytes() == local(names[1]))
    }

    @Test("a segment that comes late does not hold up the next ones")
    func late() throws {
        let (copies, names) = (try copies(), names)
        try copies.noteAsked(names[0])
        let (isFirst, others) = (Monitor(true), Monitor<[String]>([]))
        let slow = FaultyStore(store) { operation in
            let isNow = isFirst.update { isFirst in
                defer { if operation.name.hasSuffix(names[2]) { isFirst = false } }
                return isFirst && operation.name.hasSuffix(names[2])
            }
            guard isNow else { return nil }
            func wait(for name: String) throws {
                for _ in 0..<4000 where try !copies.names().contains(name) { poll(nil, 0, 5) }
            }
            #expect(throws: Never.self) {
                // The one before it comes, and the server gets it: one more may be fetched.
                try wait(for: names[1])
                try copies.noteAsked(names[1])
                try wait(for: names[3])
                let present = try copies.names()
                others.update { $0 = present }
            }
            return nil
        }
        let source = ArchiveFixture.source(slow, secret: source.settings.secret)
        #expect(try fetchAhead(copies, segments: 2, from: source).run() == 3)
        let present = others.update { $0 }
        #expect(present.contains(names[3]) && !present.contains(names[2]))
    }

    @Test("it ends with the server, when the spool is removed, and when somebody else is at it")
    func ends() throws {
        let (fixture, spool) = (fixture, spool)
        let copies = try copies()
        try copies.noteAsked(names[0])
        time.onSleep { #expect(throws: Never.self) { try FileSystem.removeFile(at: fixture.path("postmaster.pid")) } }
        #expect(try fetchAhead(copies).run() == 4)
        #expect(time.sleeps.count == 1)

        try fixture.write("postmaster.pid", Array("4711\n/data\n1795000000\n5432\n".utf8))
        try copies.noteAsked(names[0])
        time.onSleep { #expect(throws: Never.self) { try spool.removeAll() } }
        #expect(try fetchAhead(copies).run() == 4)
        #expect(time.sleeps.count == 2)

        try copies.noteAsked(names[0])
        let other = fetchAhead(copies)
        time.onSleep {
            #expect(copies.isBeingFilled)
            #expect(throws: KedgeError.self) { try other.run() }
            #expect(throws: Never.self) { try spool.removeAll() }
        }
        #expect(try fetchAhead(copies).run() == 4)
    }

    @Test("one whose lock file is gone ends, and touches nothing of the one that took its place")
    func replaced() throws {
        let (spool, names) = (spool, names)
        let copies = try copies()
        let directory = spool.directory.appending("fetched/\(copies.server.id)")
        try copies.noteAsked(names[0])
        let (time, other) = (time, Monitor<FileLock?>(nil))
        time.onSleep {
            #expect(throws: Never.self) {
                guard other.update({ $0 == nil }) else { return }
                try spool.removeAll()
                try copies.noteAsked(names[4])
                let lock = try FileLock(at: directory.appending("lock"), purpose: "a test", time: time)
                other.update { $0 = lock }
            }
        }
        #expect(try fetchAhead(copies).run() == 4)
        #expect(time.sleeps.count == 1)
        #expect(try copies.names() == [])
        #expect(copies.asked() == WALSegment(fileName: names[4], segmentSize: copies.server.segmentSize))
        #expect(copies.isBeingFilled && other.update { $0 } != nil)
    }

    @Test("where the spool is removed while a segment is on its way, nothing is made there again")
    func removedMeanwhile() throws {
        let spool = spool
        let copies = try copies()
        let watched = FaultyStore(store) { operation in
            if operation.kind == .list, operation.name.contains("/wal/") {
                #expect(throws: Never.self) { try spool.removeAll() }
            }
            return nil
        }
        try copies.noteAsked(names[0])
        let source = ArchiveFixture.source(watched, secret: source.settings.secret)
        #expect(try fetchAhead(copies, segments: 1, from: source).run() == 0)
        #expect(try !FileSystem.exists(spool.directory.appending("fetched/\(copies.server.id)")))
    }

    @Test("what a killed one left for another server is removed, what somebody still fills is not")
    func leftovers() throws {
        let left = try fill()
        try fixture.write("postmaster.pid", Array("4712\n/data\n1795000002\n5432\n".utf8))
        let next = try fill()
        #expect(try get(names[1], next) != nil)
        #expect(try get(names[1], left) == nil)
        let lock = try FileLock(
            at: spool.directory.appending("fetched/\(next.server.id)/lock"), purpose: "a test", time: time)
        try fixture.write("postmaster.pid", Array("4713\n/data\n1795000003\n5432\n".utf8))
        _ = try fill()
        #expect(try get(names[2], next) != nil)
        _ = lock
    }

    @Test("a store that fails at any moment ends it without a copy that is not whole")
    func faults() throws {
        let secret = source.settings.secret
        for number in 1...40 {
            let faulty = FaultyStore(store, .failBefore, atOperation: number)
            let copies = try copies()
            do throws(KedgeError) {
                try fetchAhead(copies, from: ArchiveFixture.source(faulty, secret: secret)).runOnce(behind: names[0])
            } catch {
                #expect(faulty.faultCount == 1)
            }
            for name in names where try get(name, copies) != nil { #expect(try fetched() == local(name)) }
            try spool.removeAll()
            if faulty.faultCount == 0 { break }
        }
    }
}
