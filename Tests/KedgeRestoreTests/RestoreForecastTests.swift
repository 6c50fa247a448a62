// That a forecast follows the newest drill that passed, scales with what is to be fetched and replayed, and is not made
// up where no drill measured anything.
import KedgeCatalog
import KedgeCodec
import KedgeCore
import KedgeTestSupport
import Testing

@testable import KedgeRestore

@Suite struct RestoreForecastTests {
    private func drill(
        at seconds: Int64, _ result: ProofResult = .passed, level: ProofLevel = .drilled, fetch: UInt64? = 1000,
        replay: UInt64? = 100
    ) throws -> ProofRecord {
        ProofRecord(
            label: try #require(Label("20261121T020000Z-full-aaaa")), level: level, result: result,
            repositoryName: "main", repositoryID: .zero, manifest: .init(length: 1, checksum: ContentHash(of: [])),
            started: Timestamp(secondsSince1970: 1), finished: Timestamp(secondsSince1970: seconds), hostName: "db1",
            createdBy: "kedge",
            phases: [
                .init(name: "select", milliseconds: 10), .init(name: "fetch", milliseconds: 500, bytes: fetch),
                .init(name: "start", milliseconds: 20), .init(name: "replay", milliseconds: 50, bytes: replay),
                .init(name: "open", milliseconds: 30), .init(name: "checks", milliseconds: 9999),
            ])
    }

    @Test("time grows with the bytes; selecting, starting and opening stay, checks do not count")
    func scaling() throws {
        let forecast = RestoreForecast(bytes: 4000, walBytes: 400, drills: [try drill(at: 5)])
        #expect(forecast?.milliseconds == 10 + 2000 + 20 + 200 + 30)
        #expect(forecast?.includesReplay == true)
        #expect(
            forecast?.sentence { "\($0.components.seconds) s" }
                == "forecast: about 2 s, by the drill of 1970-01-01T00:00:05Z on host \"db1\"")
    }

    @Test("the newest drill that passed counts; failed ones and verifications do not")
    func choice() throws {
        let drills = [
            try drill(at: 9, .failed), try drill(at: 8, level: .verified), try drill(at: 3, fetch: 1),
            try drill(at: 7), try drill(at: 2),
        ]
        #expect(RestoreForecast(bytes: 1, walBytes: 1, drills: drills)?.drill.finished.microseconds == 7_000_000)
        #expect(RestoreForecast(bytes: 1, walBytes: 1, drills: [try drill(at: 9, .failed)]) == nil)
        #expect(RestoreForecast(bytes: 1, walBytes: 1, drills: [try drill(at: 9, fetch: nil)]) == nil)
    }

    @Test("replay that no drill measured is said to be missing; nothing overflows")
    func edges() throws {
        let silent = [try drill(at: 1, replay: 0)]
        #expect(RestoreForecast(bytes: 1000, walBytes: 5, drills: silent)?.includesReplay == false)
        #expect(RestoreForecast(bytes: 1000, walBytes: 0, drills: silent)?.includesReplay == true)
        #expect(RestoreForecast(bytes: .max, walBytes: .max, drills: [try drill(at: 1, fetch: 1, replay: 1)]) == nil)
        let random = SeededRandom(seed: testSeed())
        for _ in 0..<2000 {
            let drills = [try drill(at: 1, fetch: random.next(), replay: random.next())]
            _ = RestoreForecast(bytes: random.next(), walBytes: random.next(), drills: drills)
        }
    }
}
