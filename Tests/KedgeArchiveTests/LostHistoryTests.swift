// A timeline whose history is missing while something of it is archived: the number is not free.
import KedgeArchive
import KedgeCatalog
import KedgeCore
import KedgePostgres
import KedgeRepository
import KedgeTestSupport
import Testing

@Suite struct LostHistoryTests {
    let fixture: ArchiveFixture
    let store = MemoryStore()
    let harness: ArchiveHarness

    init() throws {
        fixture = try ArchiveFixture()
        harness = ArchiveHarness(fixture: fixture, repositories: [try fixture.makeRepository(in: store)])
    }

    private func failure(_ body: () throws -> Void) -> KedgeError? { #expect(throws: KedgeError.self) { try body() } }

    private func expectGap(_ name: String, _ clause: String) {
        let error = failure { _ = try harness.get(name) }
        #expect(error?.code == .walGap)
        #expect(error?.detail?.contains(clause) == true, "\(error?.detail ?? "")")
    }

    private func warnings() throws -> [String] {
        let cluster = try harness.repositories[0].openCluster("main", for: .read)
        return InfoMessage.aboutWAL(try RepositorySurvey(cluster: cluster, interruption: Interruption()).run())
            .map(\.message)
    }

    @Test("a history is not absent while WAL of its timeline is archived, but for a server that has no use for it")
    func segments() throws {
        #expect(try harness.get("00000002.history") == .absent)
        let name = try fixture.writeSegments(count: 1, timeline: 2)[0]
        _ = try harness.push(name)
        expectGap("00000002.history", "WAL of its timeline is archived, such as \"\(name)\"")
        #expect(try harness.get("00000003.history") == .absent)
        // On its way to a later timeline a server asks for all that lie between.
        let later = try TimelineHistory(parsing: Array("1\t0/680000\tx\n".utf8), timeline: TimelineID(3))
        #expect(try harness.get("00000002.history", followed: later) == .absent)
        let older = TimelineHistory(root: TimelineID(1))
        #expect(failure { _ = try harness.get("00000002.history", followed: older) }?.code == .walGap)
        // Its own copy is where the server looks next.
        try fixture.write("pg_wal/00000002.history", Array("1\t0/500000\tx\n".utf8))
        #expect(try harness.get("00000002.history") == .absent)
        #expect(try warnings() == ["the history file of timeline 2 is missing, but WAL of it is there"])
        _ = try harness.push("00000002.history")
        #expect(try warnings() == [])
        #expect(try harness.get("00000002.history") == .fetched(repository: "main"))
    }

    @Test("any object below the timeline's directory shows it, and a history that comes in time is fetched")
    func partial() throws {
        let name = try fixture.writeSegments(count: 1, timeline: 2)[0]
        try fixture.write("pg_wal/\(name).partial", try harness.local(name))
        _ = try harness.push(name + ".partial")
        expectGap("00000002.history", "\"\(name).partial-")
        try fixture.write("pg_wal/00000002.history", Array("1\t0/500000\tx\n".utf8))
        _ = try harness.push("00000002.history")
        #expect(try harness.get("00000002.history") == .fetched(repository: "main"))
    }

    @Test("a backup, a backup history file and a timeline that descends from it show a timeline without WAL")
    func otherSigns() throws {
        try fixture.write("pg_wal/00000003.history", Array("1\t0/500000\tx\n2\t0/600000\tx\n".utf8))
        _ = try harness.push("00000003.history")
        expectGap("00000002.history", "timeline 3 descends from it, says \"00000003.history\"")
        // A sibling says nothing of it.
        try fixture.write("pg_wal/00000006.history", Array("1\t0/500000\tx\n3\t0/600000\tx\n".utf8))
        _ = try harness.push("00000006.history")
        for name in ["00000004.history", "00000005.history"] { #expect(try harness.get(name) == .absent) }
        let file = "000000040000000000000007.00000028.backup"
        try fixture.write("pg_wal/\(file)", Array("START WAL LOCATION: 0/700028\n".utf8))
        _ = try harness.push(file)
        expectGap("00000004.history", "a base backup was taken on its timeline, says \"\(file)\"")
        let catalog = BackupCatalog(try harness.repositories[0].openCluster("main", for: .write))
        try catalog.commit(
            .sample(
                try #require(Label("20261121T020000Z-full-aaaa")), timeline: 5, start: LSN(0x90_0028),
                stop: LSN(0x90_0138), system: WALBuilder.system.number))
        expectGap("00000005.history", "backup \"20261121T020000Z-full-aaaa\" was taken on its timeline")
        #expect(try harness.get("00000007.history") == .absent)
    }
}
