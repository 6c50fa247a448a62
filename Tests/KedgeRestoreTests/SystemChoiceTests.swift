// That a restore never silently takes a backup of another database system than the one that is meant (lesson 44).

import KedgeCatalog
import KedgeCore
import KedgeRepository
import KedgeRestore
import KedgeTestSupport
import Testing

@Suite struct SystemChoiceTests {
    private func backup(_ number: Int, system: UInt64, minute: Int64) throws -> CommitRecord {
        let label = try #require(Label("20261121T0200\(number)Z-full-aaaa"))
        return .sample(
            label, start: LSN(0x200_0028), stop: LSN(0x200_0138),
            stopTime: Timestamp(secondsSince1970: 1_795_000_000 + minute * 60), system: system)
    }

    /// System 8, PostgreSQL 16, was registered last.
    private func choice(_ backups: [CommitRecord]) -> SystemChoice {
        SystemChoice(
            Registration(
                clusterID: RandomID(from: SystemRandomSource()), name: "main", systemIdentifier: SystemIdentifier(8),
                postgresVersion: 16, catalogVersion: 202_307_071, walSegmentSize: 1 << 24, blockSize: 8192,
                walBlockSize: 8192, relationSegmentBlocks: 131_072, createdAt: Timestamp(secondsSince1970: 0),
                createdBy: "kedge"), backups)
    }

    @Test("without a backup's label it is the system registered last, whatever older ones left behind")
    func newest() throws {
        let old = try backup(10, system: 7, minute: 0)
        let new = try backup(20, system: 8, minute: 1)
        #expect(try choice([old, new]).system(of: nil) == SystemIdentifier(8))
        #expect(try choice([]).system(of: nil) == SystemIdentifier(8))
        #expect(try choice([old, new]).system(of: old) == SystemIdentifier(7))
    }

    @Test("latest is refused where only an earlier system has backups (lesson 44)")
    func onlyEarlier() throws {
        let old = try backup(10, system: 7, minute: 0)
        let error = #expect(throws: KedgeError.self) { _ = try choice([old]).system(of: nil) }
        #expect(
            error?.description == """
                cannot restore: the repository holds no backup of the present database system
                code: not-found
                detail: The system registered last is 8, PostgreSQL 16; the newest backup, 20261121T020010Z-full-aaaa, \
                is of system 7, PostgreSQL 15.
                hint: Run "kedge backup" first, or give "--backup 20261121T020010Z-full-aaaa" for the older system.
                """)
        #expect(try choice([old]).system(of: old) == SystemIdentifier(7))
    }

    @Test("after pg_upgrade was undone nothing is chosen silently (lesson 44)")
    func undone() throws {
        let new = try backup(20, system: 8, minute: 1)
        let old = try backup(30, system: 7, minute: 2)
        let error = #expect(throws: KedgeError.self) { _ = try choice([new, old]).system(of: nil) }
        #expect(error?.code == .targetAmbiguous)
        #expect(
            error?.hint
                == "Give \"--backup 20261121T020030Z-full-aaaa\" or \"--backup 20261121T020020Z-full-aaaa\".")
        #expect(try choice([new, old]).system(of: new) == SystemIdentifier(8))
    }
}
