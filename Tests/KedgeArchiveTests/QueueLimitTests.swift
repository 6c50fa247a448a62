// That WAL is given up only above the limit, never without a durable record, and that everybody is told until somebody
// acknowledges it.
import KedgeArchive
import KedgeCatalog
import KedgeCodec
import KedgeCore
import KedgeRepository
import KedgeTestSupport
import Testing

@Suite struct QueueLimitTests {
    let fixture: ArchiveFixture
    let store = MemoryStore()
    let names: [String]
    let harness: SpoolHarness

    init() throws {
        fixture = try ArchiveFixture()
        let secret = KeyEncryptionSecret.newKeyFile(random: SystemRandomSource())
        let source = try fixture.makeRepository(in: store, secret: secret)
        var harness = SpoolHarness(fixture, source)
        harness.ahead.segments = 0
        self.harness = harness
        names = try fixture.writeSegments(count: 6)
        try harness.makeReady(names)
    }

    func failure(_ body: () throws -> Void) -> KedgeError? { #expect(throws: KedgeError.self) { try body() } }

    func giveUp(_ name: String, limit: UInt64, in spool: Spool? = nil) throws(KedgeError) -> GivenUpSegment? {
        try QueueLimit(limitBytes: limit, spool: spool ?? harness.spool, hostName: "db1", time: harness.time)
            .giveUp(fixture.path("pg_wal/" + name), dataDirectory: fixture.path("."))
    }

    func putOff(_ name: String, limit: UInt64) throws(KedgeError) -> QueueLimit.PutOffFile? {
        try QueueLimit(limitBytes: limit, spool: harness.spool, hostName: "db1", time: harness.time)
            .putOff(fixture.path("pg_wal/" + name), dataDirectory: fixture.path("."))
    }

    func archive() throws -> WALArchive {
        let cluster = try harness.source.openCluster("main", for: .write)
        return WALArchive(cluster, cluster.newestRegistration)
    }

    func messages() throws -> [String] {
        let survey = RepositorySurvey(cluster: try archive().cluster, interruption: Interruption())
        return InfoMessage.aboutWAL(try survey.run()).map(\.message)
    }

    @Test("all that waits counts, in this cluster's segments, stored or not (lesson 27)")
    func limit() throws {
        _ = try harness.push(names[5])
        #expect(try giveUp(names[0], limit: 6 << 20) == nil)
        #expect(harness.spool.givenUpSegments().isEmpty)
        let given = try #require(try giveUp(names[0], limit: (6 << 20) - 1))
        #expect(given.file == names[0] && given.waitingBytes == 6 << 20)
        try harness.makeDone(names[0])
        #expect(try giveUp(names[1], limit: 5 << 20) == nil)
        #expect(harness.spool.givenUpSegments().map(\.file) == [names[0]])
    }

    @Test("a push under way is too long only while more waits than may, and while somebody waits for its file")
    func excess() throws {
        func excess(_ name: String, limit: UInt64) throws(KedgeError) -> UInt64? {
            try QueueLimit(limitBytes: limit, spool: harness.spool, hostName: "db1", time: harness.time)
                .excess(beside: fixture.path("pg_wal/" + name), dataDirectory: fixture.path("."))
        }
        try harness.makeReady(["00000002.history"])
        for name in [names[0], names[5], "00000002.history"] {
            #expect(try excess(name, limit: 6 << 20) == nil)
            #expect(try excess(name, limit: (6 << 20) - 1) == 6 << 20)
        }
        #expect(try excess("00000003.history", limit: 1) == nil)
        try harness.makeDone(names[0])
        #expect(try excess(names[0], limit: 1) == nil)
        #expect(try excess(names[1], limit: 1) == 5 << 20)
        // Nothing was given up by looking.
        #expect(harness.spool.givenUpSegments().isEmpty && harness.putOffFiles.isEmpty)
    }

    @Test("what is no segment is put off, so that the archiver comes to the segments, and stored by the next push")
    func others() throws {
        let backup = "\(names[2]).00000028.backup"
        let others = ["00000002.history", backup, names[5] + ".partial"]
        try fixture.write("pg_wal/00000002.history", Array("1\t0/600000\tx\n".utf8))
        try fixture.write("pg_wal/" + backup, Array("START WAL LOCATION: 0/700028 (file \(names[2]))\n".utf8))
        try fixture.write("pg_wal/\(names[5]).partial", harness.local(names[5]))
        // Nothing is put off while no more waits than may, or what nobody waits for.
        #expect(try putOff("00000002.history", limit: 1 << 20) == nil)
        try harness.makeReady(others)
        for other in others { #expect(try putOff(other, limit: 1 << 30) == nil) }
        #expect(harness.putOffFiles == [])
        for other in others {
            #expect(try giveUp(other, limit: 1 << 20) == nil)
            #expect(try putOff(other, limit: 1 << 20)?.file == other)
            try harness.makeDone(other)
        }
        #expect(try putOff(names[0], limit: 1 << 20) == nil)
        #expect(harness.putOffFiles == others.sorted())
        // They stay when what is only remembered is forgotten, and when the server has removed its own.
        try harness.spool.removeAll()
        for other in others { try FileSystem.removeFile(at: fixture.path("pg_wal/" + other)) }
        #expect(harness.putOffFiles == others.sorted())
        _ = try harness.push(names[0])
        #expect(harness.putOffFiles == [])
        #expect(try harness.archived("00000002.history") == Array("1\t0/600000\tx\n".utf8))
        #expect(try harness.archived(others[2]) == harness.local(names[5]))
        // Pushed by hand.
        try harness.makeDone(names[4])
        #expect(try giveUp(names[4], limit: 1 << 20) == nil)
    }

    /// Makes the data directory one of another database system; nil: of its own again.
    func becomeSystem(_ other: SystemIdentifier?) throws {
        try fixture.write(
            "global/pg_control", ArchiveFixture.controlFile(system: other ?? fixture.system, segmentSize: 1 << 20))
    }

    @Test("a file that was put off is stored for its own database system, and for no other")
    func otherSystem() throws {
        let history = Array("1\t0/600000\tx\n".utf8)
        try fixture.write("pg_wal/00000002.history", history)
        try harness.makeReady(["00000002.history"])
        #expect(try putOff("00000002.history", limit: 1 << 20) != nil)
        // Another server with this work directory and a repository of its own, or the same after initdb.
        let (other, otherStore) = (try ArchiveFixture(system: SystemIdentifier(42)), MemoryStore())
        var second = harness
        second.source = try other.makeRepository(in: otherStore)
        try becomeSystem(other.system)
        try fixture.write("pg_wal/00000003.history", Array("1\t0/600000\ty\n".utf8))
        #expect(try second.push("00000003.history").leftBehind.isEmpty)
        #expect(otherStore.contents.keys.contains { $0.text.hasSuffix("/00000003.history") })
        #expect(!otherStore.contents.keys.contains { $0.text.hasSuffix("/00000002.history") })
        #expect(harness.spool.putOff.map(\.system) == [fixture.system])
        // Each may put a file of the same name off.
        try fixture.write("pg_wal/00000002.history", Array("1\t0/700000\tz\n".utf8))
        #expect(try putOff("00000002.history", limit: 1 << 20) != nil)
        #expect(harness.spool.putOff.count == 2)
        try becomeSystem(nil)
        _ = try harness.push(names[0])
        #expect(harness.spool.putOff.map(\.system) == [other.system])
        #expect(try harness.archived("00000002.history") == history)
    }

    @Test("another content of a file that was put off is refused, and the same one is acknowledged again")
    func otherContent() throws {
        let history = Array("1\t0/600000\tx\n".utf8)
        try fixture.write("pg_wal/00000002.history", history)
        try harness.makeReady(["00000002.history"])
        for _ in 0..<2 { #expect(try putOff("00000002.history", limit: 1 << 20) != nil) }
        // As long, shorter, longer.
        for twin in ["1\t0/600000\ty\n", "1\t0/600000\t\n", "1\t0/600000\tx \n"] {
            try fixture.write("pg_wal/00000002.history", Array(twin.utf8))
            let error = failure { _ = try putOff("00000002.history", limit: 1 << 20) }
            #expect(error?.code == .archiveConflict && error?.hint != nil, "\(text(error))")
        }
        _ = try harness.push(names[0])
        #expect(try harness.archived("00000002.history") == history)
        #expect(harness.putOffFiles.isEmpty)
    }

    @Test("what can't be told of one database system, or not read at all, keeps nothing else from being told")
    func unregistered() throws {
        try becomeSystem(SystemIdentifier(42))
        // It comes first, and has a file of the same name.
        #expect(try giveUp(names[1], limit: 1 << 20) != nil)
        try becomeSystem(nil)
        #expect(try giveUp(names[1], limit: 1 << 20) != nil)
        #expect(harness.spool.givenUpSegments().count == 2)
        try fixture.write("work/spool/main/given-up/0-nonsense", [1, 2, 3])
        let outcome = try harness.push(names[3])
        #expect(try archive().knownGaps().map(\.numbers) == [6...6])
        #expect(harness.spool.givenUpSegments().map(\.file) == [names[1]])
        #expect(harness.spool.unreadableGivenUp == ["0-nonsense"])
        #expect(outcome.leftBehind.map(\.code) == [.walForeign], "\(outcome.leftBehind)")
        // The same of what was put off: the first can't be stored.
        _ = try Directory.create(at: fixture.path("work/spool/main/put-off"))
        try fixture.write("work/spool/main/put-off/\(fixture.system)-00000002.history", Array("nonsense".utf8))
        try fixture.write("pg_wal/00000003.history", Array("1\t0/600000\ty\n".utf8))
        try harness.makeReady(["00000003.history"])
        #expect(try putOff("00000003.history", limit: 1 << 20) != nil)
        #expect(try harness.push(names[4]).leftBehind.count == 2)
        #expect(harness.putOffFiles == ["00000002.history"])
    }

    @Test("what an earlier version put off or gave up is stored and told, or kept where it may be another system's")
    func earlierVersion() throws {
        let history = Array("1\t0/600000\tx\n".utf8)
        #expect(try giveUp(names[1], limit: 1 << 20) != nil)
        let records = fixture.path("work/spool/main/given-up")
        try FileSystem.rename(records.appending("\(fixture.system)-\(names[1])"), to: records.appending(names[1]))
        _ = try Directory.create(at: fixture.path("work/spool/main/put-off"))
        try fixture.write("work/spool/main/put-off/00000002.history", history)
        try fixture.write("work/spool/main/put-off/\(names[5]).partial", harness.local(names[5]))
        for (name, twin) in [(names[0], nil), (names[2], Array("1\t0/700000\tx\n".utf8))] {
            if let twin { try fixture.write("pg_wal/00000002.history", twin) }
            #expect(try harness.push(name).leftBehind.map(\.code) == [.walForeign])
            #expect(harness.spool.putOff.map(\.spoolName) == ["00000002.history"])
        }
        #expect(try archive().knownGaps().map(\.numbers) == [6...6])
        #expect(harness.spool.givenUpSegments().isEmpty)
        // Stored as a partial segment of its content, beside which there may be others.
        #expect(store.contents.keys.contains { $0.text.contains("\(names[5]).partial") })
        try fixture.write("pg_wal/00000002.history", history)
        #expect(try harness.push(names[3]).leftBehind.isEmpty)
        #expect(try harness.archived("00000002.history") == history)
        #expect(harness.putOffFiles.isEmpty)
    }

    @Test("no segment of a timeline is stored while the history that was put off can't be")
    func forkFirst() throws {
        let (mine, twins) = (Array("1\t0/600000\tx\n".utf8), Array("1\t0/700000\ty\n".utf8))
        var alone = harness
        alone.ahead.segments = 100
        let branch = try fixture.writeSegments(count: 2, first: 20, timeline: 2)
        // Another server's history is archived, this one's was put off.
        try fixture.write("pg_wal/00000002.history", twins)
        _ = try harness.push("00000002.history")
        try fixture.write("pg_wal/00000002.history", mine)
        try harness.makeReady(branch + ["00000002.history"])
        #expect(try putOff("00000002.history", limit: 1 << 20) != nil)
        for name in branch {
            let error = failure { _ = try alone.push(name) }
            #expect(error?.code == .archiveConflict, "\(text(error))")
            let message = error?.cause?.message ?? ""
            #expect(message.hasPrefix("could not first store \"00000002.history\", which was put off: cannot archive"))
            let isTold = error?.cause?.detail?.contains("This one is of host") == true && error?.hint != nil
            #expect(isTold, "\(text(error))")
        }
        // The segments of another timeline go on, say so, and take none of this one ahead.
        let outcome = try alone.push(names[0])
        #expect(outcome.ahead.stored == names.count - 1 && outcome.ahead.failure == nil)
        #expect(outcome.leftBehind.map(\.code) == [.archiveConflict])
        #expect(!store.contents.keys.contains { $0.text.contains(branch[0]) || $0.text.contains(branch[1]) })
        #expect(harness.putOffFiles == ["00000002.history"])
        // Where there is no conflict the history goes first, and the segments are acknowledged.
        let object = try #require(store.contents.keys.first { $0.text.hasSuffix("00000002.history") })
        _ = try store.remove([object])
        #expect(try alone.push(branch[0]).ahead.stored == 1)
        #expect(try harness.archived("00000002.history") == mine && harness.putOffFiles.isEmpty)
    }

    @Test("a file that was put off is stored before another one of its name that comes later")
    func sameNameFirst() throws {
        let history = Array("1\t0/600000\tx\n".utf8)
        try fixture.write("pg_wal/00000002.history", history)
        try harness.makeReady(["00000002.history"])
        #expect(try putOff("00000002.history", limit: 1 << 20) != nil)
        try fixture.write("pg_wal/00000002.history", Array("1\t0/700000\ty\n".utf8))
        #expect(failure { _ = try harness.push("00000002.history") }?.code == .archiveConflict)
        #expect(try harness.archived("00000002.history") == history)
    }

    @Test("wherever the store fails or dies, no segment is there without the history that was put off before it")
    func historyFirst() throws {
        let branch = try fixture.writeSegments(count: 2, first: 20, timeline: 2)
        try fixture.write("pg_wal/00000002.history", Array("1\t0/600000\tx\n".utf8))
        try harness.makeReady(branch + ["00000002.history"])
        var points = 0
        for fault in [Fault.failBefore, .crashAfter, .crashBeforeSync] {
            for number in 1...60 {
                let copy = store.copy()
                let faulty = FaultyStore(copy, fault, atOperation: number)
                try harness.spool.removeAll()
                #expect(try putOff("00000002.history", limit: 1 << 20) != nil)
                var failing = harness
                failing.source = ArchiveFixture.source(faulty, secret: harness.source.settings.secret)
                failing.ahead.segments = 1
                do throws(KedgeError) { _ = try failing.push(branch[0]) } catch {}
                copy.losePower()
                func has(_ name: String) -> Bool { copy.contents.keys.contains { $0.text.contains(name) } }
                #expect(has(".history") || !(has(branch[0]) || has(branch[1])), "\(fault) \(number)")
                #expect(has(".history") || harness.putOffFiles == ["00000002.history"], "\(fault) \(number)")
                if faulty.faultCount == 0 { break }
                points += 1
            }
        }
        #expect(points > 30)
    }

    @Test("without a durable record nothing is given up")
    func noRecord() throws {
        var unsafe = harness
        unsafe.isSafe = false
        try fixture.write("work", [])
        #expect(failure { _ = try giveUp(names[0], limit: 1 << 20) } != nil)
        #expect(failure { _ = try giveUp(names[0], limit: 1 << 20, in: unsafe.spool) } != nil)
    }

    @Test("the next push that works tells the repository, and info tells everybody until it is acknowledged")
    func told() throws {
        _ = try harness.push(names[0])
        for name in names[1...2] + names[4...4] {
            #expect(try giveUp(name, limit: 1 << 20) != nil)
            try harness.makeDone(name)
        }
        try harness.spool.removeAll()
        #expect(harness.spool.givenUpSegments().count == 3)
        #expect(try messages() == [])
        _ = try harness.push(names[3])
        #expect(harness.spool.givenUpSegments().isEmpty)
        #expect(try archive().knownGaps().map(\.reason) == [.givenUp, .givenUp])
        let text = "given up on timeline 1"
        // The last one too, behind which nothing was archived yet.
        #expect(
            try messages() == [
                "2 WAL segment(s) were \(text): \(names[1]) to \(names[2])",
                "1 WAL segment(s) were \(text): \(names[4])",
            ])
        // Which may stay so for ever: it can be acknowledged then, and is still shown.
        try acknowledgeOnCopy(names[4], leaving: ["2 WAL segment(s) were \(text): \(names[1]) to \(names[2])"])
        _ = try harness.push(names[5])
        #expect(try messages().count == 2)
        // What is archived after all is not missing.
        _ = try harness.push(names[2])
        #expect(try messages().first == "1 WAL segment(s) were \(text): \(names[1])")
        for name in [names[1], names[4]] {
            let cluster = try archive().cluster
            _ = try GapAcknowledgement.acknowledge(
                name, in: cluster, hostName: "db1", time: harness.time, interruption: Interruption())
        }
        #expect(try messages() == [])
    }

    private func acknowledgeOnCopy(_ last: String, leaving messages: [String]) throws {
        let source = ArchiveFixture.source(store.copy(), secret: harness.source.settings.secret)
        let cluster = try source.openCluster("main", for: .write)
        _ = try GapAcknowledgement.acknowledge(
            last, in: cluster, hostName: "db1", time: harness.time, interruption: Interruption())
        let info = try RepositorySurvey(cluster: cluster, interruption: Interruption()).run()
        #expect(InfoMessage.aboutWAL(info).map(\.message) == messages)
        let timeline = try #require(info.inventory.timelines.first)
        let missing = info.missingAtEnd(of: timeline)
        #expect(missing.map { $0.count } == [1] && info.acknowledged(missing, on: timeline.id) == missing)
    }

    @Test("wherever the store fails or dies, what was given up is on this host or in the repository")
    func faults() throws {
        _ = try harness.push(names[0])
        for fault in Fault.allCases {
            for number in 1...60 {
                let copy = store.copy()
                let faulty = FaultyStore(copy, fault, atOperation: number)
                try harness.spool.removeAll()
                var failing = harness
                failing.source = ArchiveFixture.source(faulty, secret: harness.source.settings.secret)
                for name in names[1...2] { #expect(try giveUp(name, limit: 1 << 20) != nil) }
                do throws(KedgeError) { _ = try failing.push(names[3]) } catch {}
                copy.losePower()
                let cluster = try ArchiveFixture.source(copy, secret: harness.source.settings.secret)
                    .openCluster("main", for: .read)
                let told = try WALArchive(cluster, cluster.newestRegistration).knownGaps().map(\.numbers)
                let local = harness.spool.givenUpSegments()
                #expect(local.count == 2 || told == [6...7], "\(fault) \(number)")
                if faulty.faultCount == 0 {
                    #expect(local.isEmpty && number > 10)
                    break
                }
            }
        }
    }
}
