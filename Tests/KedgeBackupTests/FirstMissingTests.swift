// How the WAL of a backup is looked for in its repository.
import KedgeCatalog
import KedgeCore
import KedgePostgres
import KedgeRepository
import KedgeTestSupport
import Testing

@testable import KedgeBackup

@Suite struct FirstMissingTests {
    @Test("segments are looked for in pages of one listing, not one by one (lesson 41)")
    func onePass() throws {
        let repository = try MemoryRepository()
        let counting = FaultyStore(repository.store) { _ in nil }
        let source = RepositorySource(
            settings: repository.settings, openStore: { () throws(KedgeError) in counting },
            createStore: { () throws(KedgeError) in counting })
        let cluster = try source.openCluster("main", for: .read)
        let archive = WALArchive(cluster, cluster.newestRegistration)
        let size = archive.registration.walSegmentSize
        let segments = (0..<3000).map { WALSegment(timeline: TimelineID(1), number: 200 + UInt64($0)) }
        for segment in segments where segment.number != 3100 {
            let file = WALFileName.segment(segment.fileName(segmentSize: size))
            let name = ClusterLayout.walFile(file, of: archive.registration.systemIdentifier, tag: nil)
            _ = try repository.store.put(cluster.name(name), ObjectBody([1]), .createOnly)
        }
        let before = counting.operations.count
        #expect(try archive.firstMissing(from: segments[0], through: segments[2999]) == segments[2900])
        let asked = counting.operations.dropFirst(before)
        #expect(asked.allSatisfy { $0.kind == .list } && asked.count <= 4, "\(asked.count) requests")
        #expect(try archive.firstMissing(from: segments[10], through: segments[2899]) == nil)
        #expect(try archive.firstMissing(from: segments[2901], through: segments[2999]) == nil)
    }
}
