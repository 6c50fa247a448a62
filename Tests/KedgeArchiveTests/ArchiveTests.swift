// What archive-push takes and refuses, and what archive-get serves: without a server, every outcome and message.
import KedgeArchive
import KedgeCodec
import KedgeCore
import KedgePostgres
import KedgeRepository
import KedgeTestSupport
import Testing

@Suite struct ArchiveTests {
    let fixture: ArchiveFixture
    let store = MemoryStore()
    let harness: ArchiveHarness
    let names: [String]

    init() throws {
        fixture = try ArchiveFixture()
        let secret = KeyEncryptionSecret.newKeyFile(random: SystemRandomSource())
        harness = ArchiveHarness(
            fixture: fixture, repositories: [try fixture.makeRepository(in: store, secret: secret)])
        names = try fixture.writeSegments(count: 4)
    }

    func failure(_ body: () throws -> Void) -> KedgeError? { #expect(throws: KedgeError.self) { try body() } }

    @Test("what was pushed is fetched, byte for byte")
    func roundTrip() throws {
        for name in names { #expect(try harness.push(name).stored.map(\.outcome) == [.created]) }
        for name in names {
            #expect(try harness.get(name) == .fetched(repository: "main"))
            #expect(try harness.fetched() == harness.local(name))
        }
    }

    @Test("pushing the same file again is a success and changes nothing")
    func again() throws {
        _ = try harness.push(names[0])
        let before = store.contents
        let outcome = try harness.push(names[0])
        #expect(outcome.stored.map(\.outcome) == [.alreadyExists])
        #expect(store.contents == before)
    }

    @Test("a segment that is found again is made durable before that is reported")
    func againAfterPowerFailure() throws {
        let faulty = FaultyStore(store, code: .inputOutput) { operation in
            operation.kind == .put && operation.name.contains(names[0]) ? .crashBeforeSync : nil
        }
        var other = harness
        other = ArchiveHarness(
            fixture: fixture,
            repositories: [
                RepositorySource(
                    settings: harness.repositories[0].settings, openStore: { () throws(KedgeError) in faulty },
                    createStore: { () throws(KedgeError) in faulty })
            ])
        _ = failure { _ = try other.push(names[0]) }
        #expect(try harness.push(names[0]).stored.map(\.outcome) == [.alreadyExists])
        store.losePower()
        #expect(try harness.get(names[0]) == .fetched(repository: "main"))
    }

    @Test("other content under the same name is a conflict that says where the two differ, and changes nothing")
    func conflict() throws {
        _ = try harness.push(names[1])
        let before = store.contents
        var twin = try harness.local(names[1])
        // The timeline's number in the header of the third page: a page of the same place that another server wrote.
        twin[2 * 8192 + 30] ^= 1
        try fixture.write("pg_wal/" + names[1], twin)
        let error = failure { _ = try harness.push(names[1]) }
        #expect(error?.code == .archiveConflict)
        #expect(
            error?.cause?.detail?.hasPrefix("The two first differ at LSN 0/60401E of timeline 1.  ") == true,
            "\(text(error))")
        #expect(error?.cause?.detail?.contains("host \"db1\"") == true)
        #expect(store.contents == before)
    }

    @Test("of two servers that wrote one timeline it is told which wrote what, and a rehearsal says so too")
    func twoServers() throws {
        _ = try harness.push(names[1])
        let before = store.contents
        var twin = try harness.local(names[1])
        twin[500_000] ^= 1
        try fixture.write("pg_wal/" + names[1], twin)
        let error = failure { _ = try harness.push(names[1], host: "db2") }
        let detail = try #require(error?.cause?.detail)
        #expect(detail.contains("The stored one was archived by host \"db1\" at "), "\(detail)")
        #expect(detail.contains("  This one is of host \"db2\", last changed at "), "\(detail)")
        let rehearsed = failure { try harness.rehearse(names[1], host: "db2") }
        #expect(rehearsed?.code == .archiveConflict)
        #expect(rehearsed?.message == error?.cause?.message)
        #expect(store.contents == before)
        // Nothing is stored by a rehearsal that finds nothing wrong, either.
        try harness.rehearse(names[0], host: "db2")
        #expect(store.contents == before)
    }

    @Test("a segment that is empty from a switch point on holds nothing new, and is accepted; one that is cut is not")
    func filledToTheSwitch() throws {
        _ = try harness.push(names[1])
        let (whole, before) = (try harness.local(names[1]), store.contents)
        func push(keeping count: Int, changing index: Int? = nil) throws {
            var twin = Array(whole[..<count]) + [UInt8](repeating: 0, count: whole.count - count)
            if let index { twin[index] ^= 1 }
            try fixture.write("pg_wal/" + names[1], twin)
            #expect(try harness.push(names[1]).stored.map(\.outcome) == [.alreadyExists])
        }
        // Nothing says that the timeline was left.
        #expect(failure { try push(keeping: 0x80000) }?.code == .archiveConflict)
        try fixture.write("pg_wal/00000002.history", Array("1\t0/680000\tbefore\n".utf8))
        _ = try harness.push("00000002.history")
        try push(keeping: 0x80000)
        #expect(failure { try push(keeping: 0x7F000) }?.code == .archiveConflict)
        #expect(failure { try push(keeping: 0x80001) }?.code == .archiveConflict)
        #expect(failure { try push(keeping: 0x80000, changing: 0x90000) }?.code == .archiveConflict)
        #expect(failure { try push(keeping: 0x80000, changing: 0x5001E) }?.code == .archiveConflict)
        #expect(before.allSatisfy { store.contents[$0.key] == $0.value })
    }

    @Test("partial segments are kept beside each other, never in each other's place")
    func partials() throws {
        try fixture.write("pg_wal/\(names[0]).partial", harness.local(names[0]))
        #expect(try harness.push(names[0] + ".partial").stored.map(\.outcome) == [.created])
        #expect(try harness.push(names[0] + ".partial").stored.map(\.outcome) == [.alreadyExists])
        var twin = try harness.local(names[0])
        twin[100_000] ^= 1
        try fixture.write("pg_wal/\(names[0]).partial", twin)
        #expect(try harness.push(names[0] + ".partial").stored.map(\.outcome) == [.created])
        #expect(store.names.filter { $0.text.contains(".partial-") }.count == 2)
        #expect(try harness.get(names[0]) == .absent)
    }

    @Test("history and backup history files are archived, and a broken history is refused")
    func histories() throws {
        try fixture.write("pg_wal/00000002.history", Array("1\t0/5000000\tno recovery target specified\n".utf8))
        _ = try harness.push("00000002.history")
        #expect(try harness.get("00000002.history") == .fetched(repository: "main"))
        #expect(try harness.get("00000003.history") == .absent)
        try fixture.write("pg_wal/\(names[0]).00000028.backup", Array("START WAL LOCATION: 0/5000028\n".utf8))
        _ = try harness.push("\(names[0]).00000028.backup")
        try fixture.write("pg_wal/00000003.history", Array("2\tnonsense\n".utf8))
        #expect(failure { _ = try harness.push("00000003.history") }?.code == .walInvalid)
    }

    @Test("a hole is not the end: a later segment that is archived makes a missing one an error")
    func hole() throws {
        _ = try harness.push(names[0])
        _ = try harness.push(names[2])
        #expect(try harness.get(names[3]) == .absent)
        let start = harness.time.monotonicNanoseconds()
        let error = failure { _ = try harness.get(names[1], timeoutSeconds: 30) }
        #expect(error?.code == .walGap)
        #expect(error?.detail?.contains(names[2]) == true)
        #expect(harness.time.monotonicNanoseconds() - start >= 30_000_000_000)
    }

    @Test("a segment behind the point where the server's timeline began is no end of it once its own is archived")
    func otherBranch() throws {
        let names = try harness.fixture.writeSegments(count: 3)
        for name in names { _ = try harness.push(name) }
        // Segment 6 begins at 0/600000.
        let history = try TimelineHistory(parsing: Array("1\t0/600000\tno reason\n".utf8), timeline: TimelineID(2))
        #expect(try harness.get(names[0], followed: history) == .fetched(repository: "main"))
        var warnings: [String] = []
        #expect(try harness.get(names[1], followed: history) { warnings.append($0) } == .absent)
        #expect(warnings.count == 1 && warnings[0].contains("follows timeline 2 there"), "\(warnings)")
        for name in try harness.fixture.writeSegments(count: 1, first: 6, timeline: 2) { _ = try harness.push(name) }
        let error = #expect(throws: KedgeError.self) { try harness.get(names[1], followed: history) }
        #expect(error?.code == .walForeign, "\(text(error))")
        // Without its own segment 7, but with 8, there is a hole.
        for name in try harness.fixture.writeSegments(count: 1, first: 8, timeline: 2) { _ = try harness.push(name) }
        let hole = #expect(throws: KedgeError.self) { try harness.get(names[2], followed: history) }
        #expect(hole?.code == .walGap, "\(text(hole))")
    }

    @Test("a hole that is filled while it is waited for is served")
    func holeFilled() throws {
        _ = try harness.push(names[2])
        let harness = harness
        let names = names
        harness.time.onSleep { _ = try? harness.push(names[1]) }
        #expect(try harness.get(names[1]) == .fetched(repository: "main"))
    }

    @Test("an unreachable repository never makes a file absent (lesson 28)")
    func unreachable() throws {
        _ = try harness.push(names[0])
        store.setReachable(false)
        for name in [names[0], names[3], "00000002.history"] {
            #expect(failure { _ = try harness.get(name) }?.code == .repositoryUnavailable)
        }
        #expect(failure { _ = try harness.push(names[1]) }?.code == .repositoryUnavailable)
        #expect(try !FileSystem.exists(harness.destination))
    }

    @Test("with two repositories the second serves what the first has damaged, and absence needs both")
    func twoRepositories() throws {
        let second = MemoryStore()
        let both = ArchiveHarness(
            fixture: fixture, repositories: [harness.repositories[0], try fixture.makeRepository(in: second)])
        #expect(try both.push(names[0]).stored.map(\.outcome) == [.created, .created])
        let name = try #require(store.names.first { $0.text.hasSuffix(names[0]) })
        store.damage(name) { $0[$0.count / 2] ^= 1 }
        #expect(failure { _ = try harness.get(names[0]) }?.code == .damaged)
        #expect(try both.get(names[0]) == .fetched(repository: "main"))
        #expect(try both.fetched() == harness.local(names[0]))
        second.setReachable(false)
        #expect(failure { _ = try both.get(names[1]) }?.code == .repositoryUnavailable)
        second.setReachable(true)
        #expect(try both.get(names[1]) == .absent)
    }

    @Test("a push tries every repository, and its error names each that failed and those that have the file")
    func severalFailures() throws {
        let stores = (0..<3).map { _ in MemoryStore() }
        var sources: [RepositorySource] = []
        for (number, store) in stores.enumerated() {
            _ = try fixture.makeRepository(in: store)
            sources.append(ArchiveFixture.source(store, name: "r\(number)"))
        }
        let broken = KedgeError(.keyMissing, "could not read key file \"k\"", hint: "Look for it.")
        sources.insert(.unusable("locked", broken), at: 0)
        let several = ArchiveHarness(fixture: fixture, repositories: sources)
        stores[1].setReachable(false)
        let error = failure { _ = try several.push(names[0]) }
        #expect(error?.code == .keyMissing)
        #expect(error?.message.contains("in repositories \"locked\" and \"r1\"") == true, "\(text(error))")
        #expect(error?.detail?.contains("Repository \"r1\": ") == true, "\(error?.detail ?? "")")
        #expect(error?.detail?.contains("It is durable in \"r0\", \"r2\"") == true, "\(error?.detail ?? "")")
        for number in [0, 2] {
            #expect(stores[number].names.contains { $0.text.hasSuffix(names[0]) })
        }
        // The one whose key is not there keeps no file from being found, and no file from being called absent.
        var warnings: [String] = []
        #expect(try several.get(names[0], warn: { warnings.append($0) }) == .fetched(repository: "r0"))
        #expect(warnings.count == 1 && warnings.first?.contains("\"locked\"") == true, "\(warnings)")
        #expect(failure { _ = try several.get(names[1]) }?.code == .keyMissing)
    }

    @Test("while there is another repository to turn to one that is down is not waited for; else it gets all the time")
    func hasty() throws {
        let (patient, second) = (MemoryStore(), MemoryStore())
        _ = try fixture.makeRepository(in: patient)
        let slow = Monitor(0)
        var source = ArchiveFixture.source(patient, name: "slow")
        source.openHastyStore = { () throws(KedgeError) in
            slow.update { $0 += 1 }
            throw KedgeError(.repositoryUnavailable, "could not connect", hint: "Wait.")
        }
        let both = ArchiveHarness(
            fixture: fixture, repositories: [source, try fixture.makeRepository(in: second)])
        _ = try both.push(names[0])
        #expect(try both.get(names[0]) == .fetched(repository: "main"))
        #expect(slow.update { $0 } == 1)
        // Absence needs all of them, whatever it takes.
        #expect(try both.get(names[1]) == .absent)
        let alone = ArchiveHarness(fixture: fixture, repositories: [source])
        #expect(try alone.get(names[0]) == .fetched(repository: "slow"))
        #expect(slow.update { $0 } == 2)
    }

    @Test("a damaged, cut, emptied or swapped object is never served (lesson 17)")
    func damage() throws {
        for name in names { _ = try harness.push(name) }
        let object = try #require(store.names.first { $0.text.hasSuffix(names[0]) })
        let other = try #require(store.names.first { $0.text.hasSuffix(names[1]) })
        let original = try #require(store.contents[object])
        let replacement = try #require(store.contents[other])
        var variants: [[UInt8]] = [
            [], replacement, Array(original.dropLast()), Array(original.prefix(original.count / 2)),
        ]
        for position in stride(from: 0, to: original.count, by: max(1, original.count / 200)) {
            var bytes = original
            bytes[position] ^= 0x10
            variants.append(bytes)
        }
        for bytes in variants {
            store.damage(object) { $0 = bytes }
            let error = failure { _ = try harness.get(names[0]) }
            #expect([.damaged, .keyMissing, .keyWrong, .formatUnknown].contains(error?.code), "\(text(error))")
            #expect(error?.hint?.isEmpty == false, "\(text(error))")
            // Nor is it taken for a copy that is "already there": PostgreSQL would recycle the last good one.
            let refused = failure { _ = try harness.push(names[0]) }
            #expect([.damaged, .keyMissing, .keyWrong, .formatUnknown].contains(refused?.code), "\(text(refused))")
            #expect(refused?.hint?.isEmpty == false, "\(text(refused))")
            #expect(store.contents[object] == bytes)
            #expect(try !FileSystem.exists(harness.destination))
        }
        store.damage(object) { $0 = original }
        #expect(try harness.get(names[0]) == .fetched(repository: "main"))
        #expect(try harness.push(names[0]).stored.map(\.outcome) == [.alreadyExists])
    }
}
