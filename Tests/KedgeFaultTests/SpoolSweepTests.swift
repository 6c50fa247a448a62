// That no note ever says "durable" of what is not: every store operation of a run that pushes ahead fails, or is the
// last one before the process dies, and then the power goes.
import KedgeArchive
import KedgeCodec
import KedgeCore
import KedgeRepository
import KedgeTestSupport
import Testing

@Suite struct SpoolSweepTests {
    @Test("no acknowledgement outlives what it acknowledges, wherever a run fails or dies", arguments: Fault.allCases)
    func sweep(_ fault: Fault) throws {
        let fixture = try ArchiveFixture()
        let secret = KeyEncryptionSecret.newKeyFile(random: SystemRandomSource())
        let names = try fixture.writeSegments(count: 5)
        _ = try Directory.create(at: fixture.path("pg_wal/archive_status"))
        for name in names { try fixture.write("pg_wal/archive_status/\(name).ready", []) }
        let original = MemoryStore()
        _ = try fixture.makeRepository(in: original, secret: secret)
        var points = 0
        var fromNotes = 0
        for number in 1... {
            let store = original.copy()
            let faulty = FaultyStore(store, fault, atOperation: number)
            let archiver = Archiver(fixture: fixture, source: ArchiveFixture.source(faulty, secret: secret))
            try archiver.spool.removeAll()
            var acknowledged = names.filter { archiver.push($0) != nil }
            store.losePower()
            // The spool has survived: what it says must be true.
            let after = Archiver(fixture: fixture, source: ArchiveFixture.source(store, secret: secret))
            let noted = names.filter { after.note(of: $0) != nil }
            fromNotes += noted.count
            acknowledged += noted
            for name in Set(acknowledged) {
                #expect(after.holds(name), "\(fault) at operation \(number): \(name)")
            }
            for name in names { #expect(after.push(name) != nil && after.holds(name), "\(fault) \(number)") }
            if faulty.faultCount == 0 { break }
            points += 1
        }
        #expect(points >= 15 && fromNotes > points)
        print("spool sweep, \(fault): \(points) points, \(fromNotes) notes")
    }
}

/// archive_command with a spool.
private struct Archiver {
    let fixture: ArchiveFixture
    let source: RepositorySource
    let time = ManualTime(now: SystemTimeSource().now().adding(seconds: 10))

    var spool: Spool {
        let path = fixture.path("work")
        return Spool(
            workDirectory: path, clusterName: "main", random: SystemRandomSource(),
            isSafe: { () throws(KedgeError) in try FileSystem.exists(path) },
            prepare: { () throws(KedgeError) in _ = try Directory.createPlain(at: path, mode: 0o700) })
    }

    private var destination: PushDestination {
        PushDestination(text: "main", places: [PushDestination.Place(repository: "main", openStore: nil)])
    }

    func note(of name: String) -> ArchivePush.Outcome? {
        AcknowledgedPush(
            path: fixture.path("pg_wal/" + name), dataDirectory: fixture.path("."), spool: spool,
            destination: destination, time: time
        ).run()
    }

    /// Nil where the push failed.
    func push(_ name: String) -> ArchivePush.Outcome? {
        if let outcome = note(of: name) { return outcome }
        var options = ArchivePush.Options(
            path: fixture.path("pg_wal/" + name), clusterName: "main", dataDirectory: fixture.path("."),
            repositories: [source], threads: 1, refusesDamagedWAL: false, hostName: "db1")
        options.spool = spool
        options.destination = destination
        options.ahead = PushAheadLimits(segments: 10, inFlight: 1)
        do throws(KedgeError) {
            return try ArchivePush(options, random: SystemRandomSource(), time: time).run()
        } catch {
            return nil
        }
    }

    /// Whether the repository has exactly the local file.
    func holds(_ name: String) -> Bool {
        let fetched = fixture.path("fetched")
        do throws(KedgeError) {
            let outcome = try ArchiveGet(
                ArchiveGet.Options(
                    fileName: name, destination: fetched, clusterName: "main", dataDirectory: fixture.path("."),
                    repositories: [source], threads: 1, timeoutNanoseconds: 0),
                random: SystemRandomSource(), time: time, interruption: Interruption()
            ).run()
            guard outcome != .absent else { return false }
            return try FileDescriptor.open(fetched, .read).readAll(limit: 1 << 30)
                == FileDescriptor.open(fixture.path("pg_wal/" + name), .read).readAll(limit: 1 << 30)
        } catch {
            return false
        }
    }
}
