// That a restore refuses every fault of Catalog/testing/scenarios.py that only a restore can tell: entries of the
// manifest that contradict each other or the commit record. What reading finds is IndependentWriterTests' matter.

import KedgeCatalog
import KedgeCodec
import KedgeCore
import KedgePostgres
import KedgeRepository
import KedgeRestore
import KedgeTestSupport
import Testing

@Suite struct ScenarioTests {
    private struct Scenarios {
        let directory: TemporaryDirectory
        let isEncrypted: Bool
        let label: Label
        /// Names and expected codes; "sound" has none.
        let expected: [(name: String, code: String?)]

        init(encrypted: Bool) throws {
            directory = try TemporaryDirectory()
            isEncrypted = encrypted
            let root = #filePath.split(separator: "/").dropLast(3).map { "/\($0)" }.joined()
            let outcome = try Subprocess(
                ["/usr/bin/python3", root + "/Catalog/testing/scenarios.py", "write", directory("all")]
                    + (encrypted ? [] : ["--plain"])
            ).run()
            try #require(outcome.status.isSuccess, "\(outcome.errorText)")
            let index = try JSONRecord(parsing: Scenarios.read(directory("all/index.json")), what: "index")
            label = try #require(Label(index.string("label")))
            expected = try index.records("scenarios").compactMap { scenario in
                let name = try scenario.string("name")
                guard try scenario.bool("onlyRestoring") || name == "sound" else { return nil }
                return (name, try scenario.optionalString("code"))
            }
        }

        static func read(_ path: String) throws -> [UInt8] {
            try FileDescriptor.open(RawPath(path), [.read]).readAll(limit: 1 << 20)
        }

        func source(_ name: String) throws -> RepositorySource {
            let secret =
                try isEncrypted
                ? KeyEncryptionSecret(parsingKeyFile: Scenarios.read(directory("all/\(name).key")), what: "key file")
                : nil
            let settings = RepositorySettings(
                name: "main", cipher: isEncrypted ? .aes256GCM : .none, compression: .standard, secret: secret)
            let path = directory("all/\(name)")
            let open: @Sendable () throws(KedgeError) -> any ObjectStore = { () throws(KedgeError) -> any ObjectStore in
                try LocalStore(at: path, random: SystemRandomSource())
            }
            return RepositorySource(settings: settings, openStore: open, createStore: open)
        }

        /// Puts a segment that can be read in the place of the scenario's, which holds noise.
        func archiveSegment(_ name: String) throws {
            let cluster = try source(name).openCluster("main", for: .write)
            let archive = WALArchive(cluster, cluster.newestRegistration)
            var builder = WALBuilder(firstSegment: 0x20)
            builder.append(manager: 10, info: 0x20, xid: 700, data: [1, 2, 3])
            builder.appendSwitch()
            let (segment, bytes) = builder.segments[0]
            let file = WALFileName.segment(segment.fileName(segmentSize: 1 << 20))
            for found in try archive.find(file) {
                _ = try Subprocess(["rm", directory("all/\(name)/\(cluster.name(found.name))")]).run()
            }
            let facts = WALFileFacts(
                file: file, length: UInt64(bytes.count),
                tag: bytes.withBytes { WALFileFacts.tag(of: $0, clusterID: cluster.clusterID) },
                archivedAt: Timestamp(secondsSince1970: 1_795_000_000), hostName: "db1",
                segment: try bytes.withBytes { (bytes) throws(KedgeError) in
                    try WALFacts(of: bytes, segment: segment, isPartial: false, format: builder.format)
                })
            _ = try archive.put(bytes, facts: facts, threads: 1)
        }

        func restore(_ name: String, into place: String) throws(KedgeError) -> Restore.Outcome {
            let options = Restore.Options(
                clusterName: "main", request: RestoreRequest(backup: label, target: .immediate),
                pgdata: RawPath(place + "/data"), configuredPgdata: "/nonexistent",
                tablespaces: [16400: RawPath(place + "/ts")], restoreCommand: RestoreCommandLine(words: ["kedge"]),
                processMax: 2, workDirectory: RawPath(directory.path))
            let source: RepositorySource
            do {
                source = try self.source(name)
            } catch let error as KedgeError {
                throw error
            } catch {
                throw KedgeError(.defect, "\(error)")
            }
            return try Restore(source, options).run()
        }
    }

    @Test(
        "a restore refuses what only it can tell, with the expected code, and leaves nothing", arguments: [true, false])
    func onlyRestoring(encrypted: Bool) throws {
        let scenarios = try Scenarios(encrypted: encrypted)
        #expect(scenarios.expected.count == 15)
        for (name, code) in scenarios.expected {
            try scenarios.archiveSegment(name)
            let place = scenarios.directory("restored-\(name)")
            guard let code else {
                // The sample's pg_control is noise, which is the very last thing that a restore looks at: all else of
                // it is accepted and written.
                let error = #expect(throws: KedgeError.self) { _ = try scenarios.restore(name, into: place) }
                #expect(error?.code == .notSupported)
                #expect(error?.cause?.message == "cannot read control file \"pg_control\"")
                #expect(try FileStatus(at: RawPath(place + "/data")).mode == 0o750)
                #expect(try Scenarios.read(place + "/ts/PG_15_202209061/5/16401").count == 100_000)
                continue
            }
            let error = #expect(throws: KedgeError.self, "\(name)") { _ = try scenarios.restore(name, into: place) }
            #expect(error?.code.rawValue == code, "\(name): \(error.map { "\($0)" } ?? "")")
            #expect(throws: KedgeError.self, "\(name)") {
                try FileStatus(at: RawPath(place + "/data/global/pg_control"))
            }
            // Everything but wrong bytes is found before the first one is written.
            if name != "entry-with-checksum" {
                #expect(throws: KedgeError.self, "\(name)") { try FileStatus(at: RawPath(place)) }
            }
        }
    }
}
