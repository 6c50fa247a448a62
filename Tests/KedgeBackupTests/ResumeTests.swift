// Proves on real servers that what an interrupted backup stored is used by the next one, that nothing is used that is
// not, byte for byte, what the files hold now, and that a damaged or foreign pack costs nothing but its reuse.
import Glibc
import KedgeCatalog
import KedgeCodec
import KedgeCore
import KedgePostgres
import KedgeRepository
import KedgeTestSupport
import Testing

@testable import KedgeBackup

@Suite(.serialized, .enabled(if: PostgresInstallation.serversAreEnabled, "needs servers: set KEDGE_TEST_SERVERS=1"))
struct ResumeTests {
    /// A quiet server with a table of incompressible rows.
    private func cluster() throws -> BackupTestCluster {
        let cluster = try BackupTestCluster()
        try cluster.server.psql(
            """
            create table t as select i, md5(i::text) || md5((i + 1)::text) as a from generate_series(1, 60000) i;
            create table small as select 1 as i;
            vacuum freeze; checkpoint
            """)
        return cluster
    }

    private func options(_ cluster: BackupTestCluster, _ request: BackupRequest = .full) -> Backup.Options {
        var options = cluster.options
        options.packLimits = PackLimits(storedBytes: 128 << 10, tableBytes: 2 << 20)
        options.archiveTimeout = .seconds(60)
        options.request = request
        return options
    }

    /// Lets a backup fail when nine tenths of the data were read. Returns its label and what it said.
    private func interrupt(
        _ cluster: BackupTestCluster, _ request: BackupRequest = .full
    ) throws -> (label: Label, error: KedgeError) {
        let progress = WorkProgress()
        var tools = try cluster.tools(
            files: ChangingFiles { (_, moment) throws(KedgeError) in
                let now = progress.snapshot
                guard case .read = moment, now.doneBytes * 10 >= (now.totalBytes ?? .max) * 9 else { return }
                throw KedgeError(.inputOutput, "the disk of this test is gone")
            })
        tools.progress = progress
        let before = Set(try catalog(cluster).intents())
        let error = try #require(throws: KedgeError.self) { try Backup(options(cluster, request), tools).run() }
        #expect(error.message == "the disk of this test is gone")
        let label = try #require(Set(try catalog(cluster).intents()).subtracting(before).first)
        return (label, error)
    }

    private func catalog(_ cluster: BackupTestCluster) throws -> BackupCatalog { BackupCatalog(try cluster.cluster()) }

    private func packs(_ cluster: BackupTestCluster) throws -> [ObjectName] {
        var names: [ObjectName] = []
        try cluster.store.forEachObject(below: try cluster.cluster().name(ClusterLayout.packs)) {
            entry throws(KedgeError) in names.append(entry.name)
        }
        return names
    }

    @Test("a backup takes over what one that failed at 90 % had stored, and what changed since it stores anew")
    func resume() throws {
        let cluster = try cluster()
        let (label, error) = try interrupt(cluster)
        #expect(error.detail?.contains("which the next backup takes over") == true)
        let left = try packs(cluster).count
        #expect(left > 5)

        try cluster.server.psql("update t set i = -i where i = 5; checkpoint")
        let outcome = try Backup(options(cluster), cluster.tools()).run()
        let record = outcome.record
        #expect(record.takenOver.map(\.label) == [label])
        let taken = try #require(record.takenOver.first).bytes
        #expect(taken > record.sizes.databaseBytes / 2, "\(record.sizes)")
        #expect(record.sizes.deltaBytes < record.sizes.databaseBytes / 3, "\(record.sizes)")
        #expect(record.health.fallbacks == [])
        #expect(try CommitRecord(JSONRecord(record.jsonValue, what: "record")).takenOver == record.takenOver)
        try cluster.compareWithServer(record, "resumed")
        try cluster.compareRestored(record, "resumed")

        // Of what is left nothing is needed any more, and a delta has a parent that is whole.
        let next = try Backup(options(cluster, .delta), cluster.tools()).run().record
        #expect(next.type == .delta && next.health.fallbacks == [])
        try cluster.compareWithServer(next, "delta of a resumed backup")
    }

    @Test("an interrupted delta is resumed, also by a full backup, and a backup by several interrupted ones")
    func severalInterrupted() throws {
        let cluster = try cluster()
        _ = try Backup(options(cluster), cluster.tools()).run()
        try cluster.server.psql("update t set i = -i; checkpoint")
        let first = try interrupt(cluster, .delta).label
        let second = try interrupt(cluster, .full).label
        let record = try Backup(options(cluster, .full), cluster.tools()).run().record
        #expect(record.takenOver.map(\.label) == [first, second].sorted())
        try cluster.compareWithServer(record, "full")
    }

    @Test("damaged packs, and packs of a backup whose intent is gone, are not used, and the backup is whole")
    func unusable() throws {
        let cluster = try cluster()
        let (label, _) = try interrupt(cluster)
        // In the first frame; and in the table.
        for (name, isTable) in zip(try packs(cluster), [false, true]) {
            cluster.store.damage(name) { bytes in bytes[isTable ? bytes.count - 70 : 400] ^= 1 }
        }
        var tools = try cluster.tools()
        let warnings = Monitor<[String]>([])
        tools.warn = { warning in warnings.update { $0.append(warning) } }
        let record = try Backup(options(cluster), tools).run().record
        #expect(record.takenOver.map(\.label) == [label])
        #expect(warnings.update { $0 }.count { $0.contains("of an interrupted backup was not used: ") } == 1)
        let given = "of interrupted backup \(label) was not used any more"
        #expect(record.health.fallbacks.count { $0.contains(given) } == 1)
        try cluster.compareWithServer(record, "with damaged packs")

        // An expire has given it up.
        let other = try self.cluster()
        try catalog(other).end(try interrupt(other).label)
        let anew = try Backup(options(other), other.tools()).run().record
        #expect(anew.takenOver == [])
        try other.compareWithServer(anew, "without an intent")
    }
}
