// Runs push and get against a fixture as PostgreSQL would.
import KedgeArchive
import KedgeCore
import KedgePostgres
import KedgeRepository
import KedgeTestSupport

struct ArchiveHarness {
    let fixture: ArchiveFixture
    let repositories: [RepositorySource]
    var refusesDamagedWAL = false
    let time = ManualTime()

    func push(_ name: String, host: String = "db1") throws(KedgeError) -> ArchivePush.Outcome {
        try archivePush(name, host: host).run()
    }

    func rehearse(_ name: String, host: String = "db1") throws(KedgeError) {
        try archivePush(name, host: host).rehearse()
    }

    private func archivePush(_ name: String, host: String) -> ArchivePush {
        ArchivePush(
            ArchivePush.Options(
                path: fixture.path("pg_wal/" + name), clusterName: "main", dataDirectory: fixture.path("."),
                repositories: repositories, threads: 2, refusesDamagedWAL: refusesDamagedWAL, hostName: host),
            random: SystemRandomSource(), time: time)
    }

    func get(
        _ name: String, timeoutSeconds: UInt64 = 60, followed: TimelineHistory? = nil,
        warn: (String) -> Void = { _ in }
    ) throws(KedgeError) -> ArchiveGet.Outcome {
        var options = ArchiveGet.Options(
            fileName: name, destination: destination, clusterName: "main", dataDirectory: fixture.path("."),
            repositories: repositories, threads: 2, timeoutNanoseconds: timeoutSeconds * 1_000_000_000,
            followed: followed)
        let warnings = Monitor([String]())
        options.warn = { warning in warnings.update { $0.append(warning) } }
        defer { warnings.update { $0 }.forEach(warn) }
        return try ArchiveGet(
            options, random: SystemRandomSource(), time: time, interruption: Interruption()
        ).run()
    }

    var destination: RawPath { fixture.path("pg_wal/RECOVERYXLOG") }

    func local(_ name: String) throws -> [UInt8] {
        try FileDescriptor.open(fixture.path("pg_wal/" + name), .read).readAll(limit: 1 << 30)
    }

    func fetched() throws -> [UInt8] { try FileDescriptor.open(destination, .read).readAll(limit: 1 << 30) }
}

/// The parts of an error that a user reads.
func text(_ error: KedgeError?) -> String {
    guard let error else { return "no error" }
    var text = "\(error.code.rawValue): \(error.message)"
    if let cause = error.cause { text += "\n\(cause.message)\n\(cause.detail ?? "")\n\(cause.hint ?? "")" }
    return text
}
