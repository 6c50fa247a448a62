// That archive-push survives the failure of, and the death after, every single store operation: what it acknowledged is
// there after a power failure, what it did not is whole or absent, and a rerun succeeds.
import KedgeArchive
import KedgeCodec
import KedgeCore
import KedgeRepository
import KedgeTestSupport
import Testing

@Suite struct PushSweepTests {
    @Test("a push that fails or dies at any store operation loses nothing acknowledged", arguments: Fault.allCases)
    func sweep(_ fault: Fault) throws {
        let fixture = try ArchiveFixture()
        let secret = KeyEncryptionSecret.newKeyFile(random: SystemRandomSource())
        let names = try fixture.writeSegments(count: 2)
        let original = MemoryStore()
        _ = try fixture.makeRepository(in: original, secret: secret)
        var points = 0
        for number in 1... {
            let store = original.copy()
            let faulty = FaultyStore(store, fault, atOperation: number)
            var acknowledged: [String] = []
            for name in names {
                do throws(KedgeError) {
                    _ = try push(name, fixture, ArchiveFixture.source(faulty, secret: secret))
                    acknowledged.append(name)
                } catch {
                    // Not acknowledged: PostgreSQL would try again.
                    break
                }
            }
            store.losePower()
            let source = ArchiveFixture.source(store, secret: secret)
            for name in names {
                // Whatever is visible is whole; whatever was acknowledged is visible.
                let outcome = try get(name, fixture, source)
                #expect(outcome == .fetched(repository: "main") || !acknowledged.contains(name), "\(fault) \(number)")
            }
            for name in names {
                _ = try push(name, fixture, source)
                #expect(try get(name, fixture, source) == .fetched(repository: "main"))
            }
            if faulty.faultCount == 0 { break }
            points += 1
        }
        #expect(points >= 10)
        print("push sweep, \(fault): \(points) points")
    }

    private func push(
        _ name: String, _ fixture: ArchiveFixture, _ source: RepositorySource
    ) throws(KedgeError) -> ArchivePush.Outcome {
        try ArchivePush(
            ArchivePush.Options(
                path: fixture.path("pg_wal/" + name), clusterName: "main", dataDirectory: fixture.path("."),
                repositories: [source], threads: 1, refusesDamagedWAL: false, hostName: "db1"),
            random: SystemRandomSource(), time: ManualTime()
        ).run()
    }

    private func get(
        _ name: String, _ fixture: ArchiveFixture, _ source: RepositorySource
    ) throws(KedgeError) -> ArchiveGet.Outcome {
        do throws(KedgeError) {
            return try ArchiveGet(
                ArchiveGet.Options(
                    fileName: name, destination: fixture.path("pg_wal/RECOVERYXLOG"), clusterName: "main",
                    dataDirectory: fixture.path("."), repositories: [source], threads: 1, timeoutNanoseconds: 0),
                random: SystemRandomSource(), time: ManualTime(), interruption: Interruption()
            ).run()
        } catch  where error.code == .walGap {
            // The second segment went through, the first did not: absence can't be proven, and is not claimed.
            return .absent
        }
    }
}
