// Proves what `kedge backup` prints for a backup that is well and for one with damaged pages, and what it refuses.
import KedgeBackup
import KedgeCatalog
import KedgeCore
import Testing

@testable import KedgeCommand

struct BackupCommandTests {
    private func record(damagedPages: Int = 0, count: UInt64 = 0) throws -> CommitRecord {
        let moment = Timestamp(secondsSince1970: 1_795_226_400)
        let label = try #require(Label("20261121T020000Z-full-7k3q"))
        return CommitRecord(
            label: label, type: .full, parent: nil, clusterName: "main",
            server: CommitRecord.ServerFacts(
                systemIdentifier: SystemIdentifier(7), postgresVersion: 15, serverVersion: "15.8", fromStandby: false,
                dataChecksums: true, blockSize: 8192, walSegmentSize: 16 << 20, relationSegmentBlocks: 131_072),
            span: CommitRecord.BackupSpan(
                timeline: TimelineID(1), startLSN: LSN(0x200_0028), stopLSN: LSN(0x200_0138),
                checkpointLSN: LSN(0x200_0060), startTime: moment, stopTime: moment.adding(seconds: 3),
                walFrom: "000000010000000000000002", walTo: "000000010000000000000002", history: [],
                snapshot: "1:1:", afterStopTime: moment, afterStopLSN: LSN(0x300_0000)),
            tablespaces: [], dataDirectory: "/data", configurationFiles: [],
            sizes: CommitRecord.BackupSizes(
                databaseBytes: 4 << 30, storedBytes: 1 << 30, deltaBytes: 4 << 30, files: 1200),
            packs: [], manifest: CommitRecord.ManifestSeal(length: 1, checksum: ContentHash(high: 0, low: 1)),
            health: CommitRecord.BackupHealth(
                damagedPages: (0..<damagedPages).map {
                    CommitRecord.DamagedPage(path: ManifestPath(bytes: Array("base/5/16384".utf8)), block: UInt32($0))
                }, damagedPageCount: count),
            keySlots: [], hostName: "db1", createdBy: "kedge",
            durations: [
                CommitRecord.PhaseDuration(phase: "start", milliseconds: 500),
                CommitRecord.PhaseDuration(phase: "copy", milliseconds: 8000),
                CommitRecord.PhaseDuration(phase: "wal", milliseconds: 1500),
            ])
    }

    @Test("all is well: one line, status 0")
    func well() throws {
        let result = BackupCommand.result(Backup.Outcome(record: try record(), repositoryName: "main"))
        #expect(
            result.lines == [
                "backup 20261121T020000Z-full-7k3q: 4 GB in 1200 files, stored as 1 GB (1:4.0) in repository "
                    + "\"main\"; 10 s, 512 MB/s"
            ])
        #expect(result.status == 0)
    }

    @Test("damaged pages are listed, the first ten of them, and the status is 3")
    func damaged() throws {
        let outcome = Backup.Outcome(record: try record(damagedPages: 12, count: 5000), repositoryName: "main")
        let result = BackupCommand.result(outcome)
        #expect(result.status == 3)
        #expect(result.lines.count == 13)
        #expect(
            result.lines[1]
                == "5000 damaged page(s): the checksum does not fit, and replay does not repair it")
        #expect(result.lines[2] == "  base/5/16384, block 0")
        #expect(
            result.lines[12]
                == "  and 4990 more; \"kedge backup --json\" and the commit record list up to 1000")
    }

    @Test("suspect WAL is told with what it means, and the status is 3 where the backup itself needs it")
    func suspectWAL() throws {
        var sound = try record()
        sound.health.walSuspect = [.init(file: "F", lsn: sound.span.stopLSN, reason: "its CRC is wrong")]
        let beyond = BackupCommand.result(Backup.Outcome(record: sound, repositoryName: "main"))
        #expect(beyond.status == 0)
        #expect(
            beyond.lines.dropFirst() == [
                "suspect WAL segment F, at \(sound.span.stopLSN): its CRC is wrong",
                "  recovery may not get beyond that: it matters until there is a backup that began after it",
            ])
        sound.health.walSuspect[0].lsn = LSN(sound.span.stopLSN.position - 8)
        let within = BackupCommand.result(Backup.Outcome(record: sound, repositoryName: "main"))
        #expect(within.status == 3)
        #expect(
            within.lines.last
                == "  the backup needs it up to \(sound.span.stopLSN) and may not be of use: take a new one now")
    }

    @Test("a delta says what it builds on, and a full backup in its place why")
    func delta() throws {
        var record = try record()
        record.type = .delta
        record.parent = Label("20261121T020000Z-full-aaaa")
        record.health.fallbacks = ["Changed regions of 1 MiB were stored whole."]
        let outcome = Backup.Outcome(record: record, repositoryName: "main", reason: "it builds on something")
        let text = BackupCommand.result(outcome).json.compactText
        let json = try JSONRecord(parsing: text.utf8, what: "backup")
        #expect(try json.string("type") == "delta")
        #expect(try json.string("parent") == "20261121T020000Z-full-aaaa")
        #expect(try json.string("reason") == "it builds on something")
        #expect(try json.strings("fallbacks") == record.health.fallbacks)
    }
}
