// Proves that whatever store operation of a backup fails or is the last one before a crash, the catalogue shows only
// backups whose every byte is there, an acknowledged backup survives a loss of power, and a rerun succeeds.
import Glibc
import KedgeCatalog
import KedgeCore
import KedgeRepository
import KedgeTestSupport
import Testing

@testable import KedgeBackup

@Suite(.serialized, .enabled(if: PostgresInstallation.serversAreEnabled, "needs servers: set KEDGE_TEST_SERVERS=1"))
struct BackupSweepTests {
    private static let isSoak = getenv("KEDGE_TEST_SOAK").map { String(cString: $0) } == "1"

    @Test("a fault at any operation leaves only whole backups, and a rerun succeeds", arguments: Fault.allCases)
    func sweep(_ fault: Fault) throws {
        let cluster = try BackupTestCluster()
        let operations = try operations(cluster)
        let kinds = Fault.allCases
        let turn = try #require(kinds.firstIndex(of: fault))
        // A backup costs a second, so each operation gets one kind of fault; with KEDGE_TEST_SOAK each gets all.
        let points = operations.filter { Self.isSoak || $0.number % kinds.count == turn }
        for point in points { try check(cluster, fault, at: point.number) }
        print("backup sweep, \(fault): \(points.count) of \(operations.count) points")
        #expect(points.count >= 5)
    }

    /// The store operations of a backup that succeeds.
    private func operations(_ cluster: BackupTestCluster) throws -> [StoreOperation] {
        let store = cluster.store.copy()
        let faulty = FaultyStore(store) { _ in nil }
        _ = try backUp(cluster, through: faulty, to: store)
        return faulty.operations
    }

    private func backUp(
        _ cluster: BackupTestCluster, through faulty: FaultyStore, to store: MemoryStore
    ) throws -> Backup.Outcome {
        var options = cluster.options
        options.repository = cluster.source(in: faulty)
        // One worker: the order of operations is then the same in every run, but for how often WAL is looked for.
        options.workers = 1
        return try Backup(options, cluster.tools(source: cluster.source(in: store))).run()
    }

    private func check(_ cluster: BackupTestCluster, _ fault: Fault, at number: Int) throws {
        let store = cluster.store.copy()
        let faulty = FaultyStore(store, fault, atOperation: number)
        var acknowledged: CommitRecord?
        do {
            acknowledged = try backUp(cluster, through: faulty, to: store).record
        } catch let error as KedgeError {
            #expect(error.code != .defect, "\(error)")
        }
        store.losePower()
        let source = cluster.source(in: store)
        let catalog = BackupCatalog(try cluster.cluster(in: source))
        let listing = try catalog.list()
        #expect(listing.unreadable.isEmpty)
        if let acknowledged { #expect(listing.backups == [acknowledged], "\(fault) at \(number)") }
        for record in listing.backups { try readAll(cluster, record, source) }
        let rerun = try backUp(cluster, through: FaultyStore(store) { _ in nil }, to: store).record
        let after = try catalog.list().backups
        #expect(after.contains(rerun), "\(fault) at \(number)")
        #expect(after.count == listing.backups.count + 1)
    }

    private func readAll(_ cluster: BackupTestCluster, _ record: CommitRecord, _ source: RepositorySource) throws {
        let reader = PackReader(PackDirectories(try cluster.cluster(in: source)))
        for entry in try cluster.entries(record, in: source) where entry.content != nil {
            _ = try cluster.content(entry, reader)
        }
    }
}
