// That one run stores the segments that wait, that later calls only acknowledge, and that no note is believed that is
// about anything but this very file in these very repositories. Failures of the store: SpoolSweepTests.swift.
import KedgeArchive
import KedgeCodec
import KedgeCore
import KedgeRepository
import KedgeTestSupport
import Testing

@Suite struct SpoolPushTests {
    let fixture: ArchiveFixture
    let store = MemoryStore()
    let counting: FaultyStore
    let names: [String]
    var harness: SpoolHarness

    init() throws {
        fixture = try ArchiveFixture()
        let secret = KeyEncryptionSecret.newKeyFile(random: SystemRandomSource())
        _ = try fixture.makeRepository(in: store, secret: secret)
        counting = FaultyStore(store) { _ in nil }
        harness = SpoolHarness(fixture, ArchiveFixture.source(counting, secret: secret))
        names = try fixture.writeSegments(count: 6)
        try harness.makeReady(names)
    }

    func failure(_ body: () throws -> Void) -> KedgeError? { #expect(throws: KedgeError.self) { try body() } }

    @Test(
        "one run stores all that waits, and each later call acknowledges without asking the store", arguments: [1, 4])
    func drain(inFlight: Int) throws {
        var harness = harness
        harness.ahead.inFlight = inFlight
        let first = try harness.push(names[0])
        #expect(first.ahead.stored == 5 && first.ahead.failure == nil && !first.isFromNote)
        let before = counting.operations.count
        for name in names {
            let outcome = try harness.push(name)
            #expect(outcome.isFromNote)
            #expect(outcome.stored.map(\.repository) == ["main"])
            try harness.makeDone(name)
        }
        #expect(counting.operations.count == before)
        for name in names { #expect(try harness.archived(name) == harness.local(name)) }
    }

    @Test("as many as configured are stored ahead, those behind the own one first")
    func limits() throws {
        var harness = harness
        harness.ahead.segments = 3
        #expect(try harness.push(names[2]).ahead.stored == 3)
        #expect(try harness.notes == Array(names[2...5]))
        harness.ahead.segments = 0
        #expect(try harness.push(names[0]).ahead.stored == 0)
        #expect(try harness.archived(names[1]) == nil)
    }

    @Test("the spool holds notes only of what waits")
    func bounded() throws {
        _ = try harness.push(names[0])
        for name in names { try harness.makeDone(name) }
        let later = try fixture.writeSegments(count: 1, first: 11)
        try harness.makeReady(later)
        _ = try harness.push(later[0])
        #expect(try harness.notes == later)
    }

    @Test("a spool that is gone, or that others can write to, costs time and nothing else")
    func withoutSpool() throws {
        _ = try harness.push(names[0])
        try harness.spool.removeAll()
        let outcome = try harness.push(names[0])
        #expect(!outcome.isFromNote && outcome.stored.map(\.outcome) == [.alreadyExists])
        var unsafe = harness
        unsafe.isSafe = false
        #expect(try !unsafe.push(names[1]).isFromNote)
        #expect(try harness.push(names[1]).isFromNote)
        // Where it can't even be written, as on a full disk.
        try harness.spool.removeAll()
        try fixture.write("work/spool/main/durable", [])
        #expect(try !harness.push(names[2]).isFromNote)
        #expect(try harness.archived(names[2]) == harness.local(names[2]))
    }

    @Test("another file under the same name is never acknowledged by the note of the first")
    func otherFile() throws {
        _ = try harness.push(names[0])
        #expect(harness.acknowledged(names[1]) != nil)
        // The same bytes in a new file, as after a restore or pg_rewind.
        try fixture.write("pg_wal/" + names[1], harness.local(names[1]))
        #expect(harness.acknowledged(names[1]) == nil)

        // Other bytes in the same file, with its old modification time.
        let path = fixture.path("pg_wal/" + names[2])
        let status = try FileStatus(at: path)
        let file = try FileDescriptor.open(path, [.read, .write])
        try file.write([1, 2, 3], at: 20_000)
        try file.setTimes(nanoseconds: status.modifiedNanoseconds)
        #expect(harness.acknowledged(names[2]) == nil)
        #expect(failure { _ = try harness.push(names[2]) }?.code == .archiveConflict)

        // Another size.
        try FileDescriptor.open(fixture.path("pg_wal/" + names[3]), [.read, .write]).truncate(to: 8192)
        #expect(harness.acknowledged(names[3]) == nil)
        try FileSystem.removeFile(at: fixture.path("pg_wal/" + names[4]))
        #expect(harness.acknowledged(names[4]) == nil)
    }

    @Test("a note counts only for the database system, the configuration and the hour that it was made for")
    func otherCircumstances() throws {
        _ = try harness.push(names[0])
        #expect(harness.acknowledged(names[1]) != nil)
        var other = harness
        other.destinationText = "repository main in another bucket"
        #expect(other.acknowledged(names[1]) == nil)
        let start = harness.time.now()
        harness.time.set(start.adding(seconds: -1))
        #expect(harness.acknowledged(names[1]) == nil)
        harness.time.set(start.adding(seconds: 3601))
        #expect(harness.acknowledged(names[1]) == nil)
        harness.time.set(start)
        #expect(harness.acknowledged(names[1]) != nil)
        try fixture.write(
            "global/pg_control", ArchiveFixture.controlFile(system: SystemIdentifier(99), segmentSize: 1 << 20))
        #expect(harness.acknowledged(names[1]) == nil)
    }

    @Test("where looking is cheap, a note of an object that is gone, or of another repository, does not count")
    func looking() throws {
        var harness = harness
        harness.looks = true
        _ = try harness.push(names[0])
        #expect(harness.acknowledged(names[1]) != nil)
        let object = try #require(store.contents.keys.first { $0.text.contains(names[1]) })
        _ = try store.remove([object])
        #expect(harness.acknowledged(names[1]) == nil)
        #expect(harness.acknowledged(names[2]) != nil)
        // Cut behind its head, or emptied.
        for size in [1000, 0] {
            let cut = try #require(store.contents.keys.first { $0.text.contains(names[3]) })
            store.damage(cut) { $0 = Array($0.prefix(size)) }
            #expect(harness.acknowledged(names[3]) == nil)
            let refused = failure { _ = try harness.push(names[3]) }
            #expect([.damaged, .formatUnknown].contains(refused?.code), "\(text(refused))")
        }
        store.setReachable(false)
        #expect(harness.acknowledged(names[2]) == nil)
        // Above archive-queue-limit nobody is asked: a mount that hangs would hold up what needs none.
        #expect(harness.acknowledged(names[2], asking: false) != nil)
        store.setReachable(true)
        // Made anew in the same place.
        let fresh = MemoryStore()
        harness.source = try fixture.makeRepository(in: fresh)
        #expect(harness.acknowledged(names[2]) == nil)
    }

    @Test("a note with any byte changed, or cut anywhere, is no note")
    func damagedNotes() throws {
        _ = try harness.push(names[0])
        let path = fixture.path("work/spool/main/durable/" + names[1])
        let file = try FileDescriptor.open(path, [.read, .write])
        let note = try file.readAll(limit: 1 << 16)
        func write(_ bytes: [UInt8]) throws {
            try file.truncate(to: 0)
            try file.write(bytes, at: 0)
        }
        let random = SeededRandom(seed: testSeed())
        for index in note.indices {
            var changed = note
            changed[index] ^= UInt8(1 + random.next(below: 255))
            try write(changed)
            #expect(harness.acknowledged(names[1]) == nil, "byte \(index)")
            try write(Array(note[..<index]))
            #expect(harness.acknowledged(names[1]) == nil, "\(index) bytes")
        }
        try write(note)
        #expect(harness.acknowledged(names[1]) != nil)
        // A whole note under another segment's name.
        try fixture.write("work/spool/main/durable/" + names[2], note)
        #expect(harness.acknowledged(names[2]) == nil)
    }

    @Test("a file that was changed only just before it was read gets no note")
    func unsettled() throws {
        let changed = try FileStatus(at: fixture.path("pg_wal/" + names[0])).changedNanoseconds
        harness.time.set(Timestamp(microseconds: changed / 1000 + 5_000))
        var alone = harness
        alone.ahead.segments = 0
        _ = try alone.push(names[0])
        #expect(try harness.notes.isEmpty)
    }

    @Test("what goes wrong with another segment is told and is not the failure of the own call")
    func failureAhead() throws {
        var twin = try harness.local(names[3])
        twin[2 * 8192 + 30] ^= 1
        let original = try harness.local(names[3])
        try fixture.write("pg_wal/" + names[3], twin)
        var alone = harness
        alone.ahead.segments = 0
        _ = try alone.push(names[3])
        try harness.spool.removeAll()
        try fixture.write("pg_wal/" + names[3], original)
        let outcome = try harness.push(names[0])
        #expect(outcome.ahead.stored == 2)
        #expect(outcome.ahead.failure?.cause?.code == .archiveConflict, "\(text(outcome.ahead.failure))")
        #expect(harness.acknowledged(names[3]) == nil)
        #expect(failure { _ = try harness.push(names[3]) }?.code == .archiveConflict)
    }

    @Test("a damaged segment ahead is stored and named, or left to its own call where the configuration refuses it")
    func damagedAhead() throws {
        var bytes = try harness.local(names[1])
        for index in 300_000..<300_100 { bytes[index] ^= 0x55 }
        try fixture.write("pg_wal/" + names[1], bytes)
        var refusing = harness
        refusing.refusesDamagedWAL = true
        let refused = try refusing.push(names[0])
        #expect(refused.ahead.stored == 0 && refused.ahead.failure?.code == .walSuspect)
        #expect(refusing.acknowledged(names[1]) == nil)
        let stored = try harness.push(names[0])
        #expect(stored.isFromNote)
        try harness.spool.removeAll()
        let again = try harness.push(names[0])
        #expect(again.ahead.stored == 5 && again.ahead.suspects.first?.hasPrefix(names[1]) == true)
    }
}
