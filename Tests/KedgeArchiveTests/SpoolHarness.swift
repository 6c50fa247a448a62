// Pushes with a spool, as PostgreSQL's archiver would call kedge: each file by its name, again until it is
// acknowledged.
import KedgeArchive
import KedgeCore
import KedgeRepository
import KedgeTestSupport

/// A data directory with waiting segments, a spool and one repository.
struct SpoolHarness {
    let fixture: ArchiveFixture
    var source: RepositorySource
    /// Ten seconds ahead of the files' times: none of them was changed just now.
    let time: ManualTime
    var destinationText = "repository main"
    /// Looks at the store before a note is believed, as for a local repository.
    var looks = false
    var ahead = PushAheadLimits(segments: 100, inFlight: 1)
    var isSafe = true
    var refusesDamagedWAL = false

    init(_ fixture: ArchiveFixture, _ source: RepositorySource) {
        self.fixture = fixture
        self.source = source
        time = ManualTime(now: SystemTimeSource().now().adding(seconds: 10))
    }

    var spool: Spool {
        let (path, isSafe) = (fixture.path("work"), isSafe)
        return Spool(
            workDirectory: path, clusterName: "main", random: SystemRandomSource(),
            isSafe: { () throws(KedgeError) in
                guard isSafe else { throw KedgeError(.permission, "others can write to it") }
                return try FileSystem.exists(path)
            },
            prepare: { () throws(KedgeError) in _ = try Directory.createPlain(at: path, mode: 0o700) })
    }

    var destination: PushDestination {
        PushDestination(
            text: destinationText,
            places: [PushDestination.Place(repository: "main", openStore: looks ? source.openStore : nil)])
    }

    /// What a note says of a file; nil where no note is enough.
    func acknowledged(_ name: String, asking isAsked: Bool = true) -> ArchivePush.Outcome? {
        AcknowledgedPush(
            path: fixture.path("pg_wal/" + name), dataDirectory: fixture.path("."), spool: spool,
            destination: isAsked ? destination : destination.unasked, time: time
        ).run()
    }

    /// One archive_command.
    func push(_ name: String) throws(KedgeError) -> ArchivePush.Outcome {
        if let outcome = acknowledged(name) { return outcome }
        var options = ArchivePush.Options(
            path: fixture.path("pg_wal/" + name), clusterName: "main", dataDirectory: fixture.path("."),
            repositories: [source], threads: 2, refusesDamagedWAL: refusesDamagedWAL, hostName: "db1")
        options.spool = spool
        options.destination = destination
        options.ahead = ahead
        return try ArchivePush(options, random: SystemRandomSource(), time: time).run()
    }

    /// What the repository holds under a segment's name; nil for nothing.
    func archived(_ name: String) throws(KedgeError) -> [UInt8]? {
        let destination = fixture.path("fetched")
        let outcome: ArchiveGet.Outcome
        do throws(KedgeError) {
            outcome = try ArchiveGet(
                ArchiveGet.Options(
                    fileName: name, destination: destination, clusterName: "main", dataDirectory: fixture.path("."),
                    repositories: [source], threads: 1, timeoutNanoseconds: 0),
                random: SystemRandomSource(), time: time, interruption: Interruption()
            ).run()
        } catch  where error.code == .walGap {
            // A later one is there, this one is not.
            return nil
        }
        guard outcome != .absent else { return nil }
        return try FileDescriptor.open(destination, .read).readAll(limit: 1 << 30)
    }

    /// What was put off and still waits, of whichever system.
    var putOffFiles: [String] { spool.putOff.map(\.file.text) }

    func local(_ name: String) throws(KedgeError) -> [UInt8] {
        try FileDescriptor.open(fixture.path("pg_wal/" + name), .read).readAll(limit: 1 << 30)
    }

    /// Lets PostgreSQL wait for these files.
    func makeReady(_ names: [String]) throws {
        _ = try Directory.createPlain(at: fixture.path("pg_wal/archive_status"))
        for name in names { try fixture.write("pg_wal/archive_status/\(name).ready", []) }
    }

    /// As pgarch.c, pgarch_archiveDone.
    func makeDone(_ name: String) throws {
        let status = fixture.path("pg_wal/archive_status")
        try FileSystem.rename(status.appending(name + ".ready"), to: status.appending(name + ".done"))
    }

    var notes: [String] {
        get throws {
            do throws(KedgeError) {
                return try Directory.entries(at: fixture.path("work/spool/main/durable")).map(\.name.description)
            } catch {
                return []
            }
        }
    }
}
