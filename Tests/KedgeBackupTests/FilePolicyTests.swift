// Proves what is kept, emptied and left out of a data directory, name by name, for every place a name can be in.
import KedgeCore
import Testing

@testable import KedgeBackup

struct FilePolicyTests {
    private static let policy = FilePolicy(majorVersion: 15, catalogVersion: 202_209_061)

    private func decide(
        _ name: String, _ kind: FileKind = .regular, in place: Place, unlogged: Set<UInt32> = [],
        policy: FilePolicy = FilePolicyTests.policy
    ) -> FileDecision {
        policy.decide(RawPath(name), kind: kind, in: place) { unlogged.contains($0) }
    }

    private func relation(_ name: String) throws -> FileDecision {
        .copy(.relation(try #require(RelationFileName(Array(name.utf8)))))
    }

    // MARK: Relations

    struct NameRow: Sendable {
        let name: String
        let number: UInt32?
        var fork = RelationFork.main
        var segment: UInt32 = 0
    }

    @Test(
        "names of relation files, and names that only look like them",
        arguments: [
            NameRow(name: "16384", number: 16384), NameRow(name: "1", number: 1),
            NameRow(name: "4294967295", number: .max), NameRow(name: "16384.1", number: 16384, segment: 1),
            NameRow(name: "16384_fsm", number: 16384, fork: .freeSpaceMap),
            NameRow(name: "16384_vm.12", number: 16384, fork: .visibilityMap, segment: 12),
            NameRow(name: "16384_init", number: 16384, fork: .initialization),
            NameRow(name: "16384_init.1", number: 16384, fork: .initialization, segment: 1),
            NameRow(name: "", number: nil), NameRow(name: "0", number: nil), NameRow(name: "016384", number: nil),
            NameRow(name: "4294967296", number: nil), NameRow(name: "16384.", number: nil),
            NameRow(name: "16384.0", number: nil), NameRow(name: "16384.01", number: nil),
            NameRow(name: "16384.1.1", number: nil), NameRow(name: "16384_", number: nil),
            NameRow(name: "16384_main", number: nil), NameRow(name: "16384_fsmx", number: nil),
            NameRow(name: "16384_vm_init", number: nil), NameRow(name: "16384_tmp", number: nil),
            NameRow(name: "16384 ", number: nil), NameRow(name: "+16384", number: nil),
            NameRow(name: "t3_16384", number: nil), NameRow(name: "PG_VERSION", number: nil),
            NameRow(name: "pg_filenode.map", number: nil),
        ])
    func relationNames(_ row: NameRow) {
        let parsed = RelationFileName(Array(row.name.utf8))
        #expect(parsed?.number == row.number)
        if row.number != nil {
            #expect(parsed?.fork == row.fork)
            #expect(parsed?.segment == row.segment)
        }
    }

    @Test("temporary relations are left out, whatever fork or segment; look-alikes stay (lesson 33)")
    func temporaryRelations() {
        for name in ["t3_16390", "t3_16390.1", "t10_16390_fsm", "t3_16390_vm.2", "t3_16390_init"] {
            #expect(decide(name, in: .database) == .skip, "\(name)")
            #expect(decide(name, in: .other) == .copy(.whole), "\(name)")
        }
        for name in ["t_16390", "t3_", "t3_x", "t3", "tx_1", "t3_16390x", "t3_16390_tmp", "T3_16390"] {
            #expect(decide(name, in: .database) == .copy(.whole), "\(name)")
        }
    }

    @Test("of an unlogged relation only the init fork stays, with all its segments (lesson 33)")
    func unloggedRelations() throws {
        let unlogged: Set<UInt32> = [16384]
        for name in ["16384", "16384.1", "16384_fsm", "16384_vm", "16384_vm.1"] {
            #expect(decide(name, in: .database, unlogged: unlogged) == .skip, "\(name)")
        }
        for name in ["16384_init", "16384_init.1", "16385", "16385_vm", "163840"] {
            #expect(try decide(name, in: .database, unlogged: unlogged) == relation(name), "\(name)")
        }
        #expect(decide("16384_tmp", in: .database, unlogged: unlogged) == .copy(.whole))
    }

    @Test("block numbers run on over the files of a relation; pg_filenode.map and PG_VERSION have no pages (lesson 34)")
    func blockNumbers() throws {
        let second = try #require(RelationFileName(Array("16384.3".utf8)))
        #expect(second.firstBlock(relationSegmentBlocks: 131_072) == 393_216)
        let beyond = try #require(RelationFileName(Array("16384.32768".utf8)))
        #expect(beyond.firstBlock(relationSegmentBlocks: 131_072) == nil)
        for name in ["pg_filenode.map", "PG_VERSION", "unknown"] {
            #expect(decide(name, in: .database) == .copy(.whole))
            #expect(decide(name, in: .global) == .copy(.whole))
        }
        #expect(decide("pg_control", in: .global) == .copy(.controlFile))
        #expect(decide("pg_control", in: .database) == .copy(.whole))
        #expect(try decide("1262", in: .global) == relation("1262"))
        #expect(decide("1262", in: .other) == .copy(.whole))
    }

    // MARK: Names left out everywhere

    @Test(
        "left out in every place (lessons 34, 37)",
        arguments: [
            "backup_label", "backup_label.old", "tablespace_map", "tablespace_map.old", "backup_manifest",
            "postmaster.pid", "postmaster.opts", "postgresql.auto.conf.tmp", "current_logfiles.tmp", "pgsql_tmp",
            "pgsql_tmp1234.0", "pg_internal.init", "pg_internal.init.4711", ".kedge~0123",
        ])
    func leftOut(_ name: String) {
        for place in [Place.dataDirectory, .global, .databases, .database, .essential, .other] {
            for kind in [FileKind.regular, .directory, .symbolicLink, .other] {
                #expect(decide(name, kind, in: place) == .skip)
            }
        }
    }

    @Test("copied whole: what only resembles a name that is left out, and logs and settings")
    func copied() {
        let names = [
            "backup_label2", "tablespace_map.1", "backup_manifest.old", "postmaster.pid2", "postgresql.auto.conf",
            "postgresql.conf", "pg_hba.conf", "current_logfiles", "PG_VERSION", "standby.signal", "server.key",
            "core.1234", "pg_control.bak",
        ]
        for name in names { #expect(decide(name, in: .dataDirectory) == .copy(.whole), "\(name)") }
        #expect(decide("postgresql-2026.log", in: .other) == .copy(.whole))
        #expect(decide("0000", in: .essential) == .copy(.whole))
        let bytes = RawPath(bytes: [0xFF, 0x01, 0x20])
        #expect(FilePolicyTests.policy.decide(bytes, kind: .regular, in: .other) { _ in false } == .copy(.whole))
    }

    // MARK: Directories

    struct DirectoryRow: Sendable {
        let name: String
        let decision: FileDecision
    }

    @Test(
        "directories of the data directory",
        arguments: [
            DirectoryRow(name: "base", decision: .directory(.databases)),
            DirectoryRow(name: "global", decision: .directory(.global)),
            DirectoryRow(name: "pg_tblspc", decision: .directory(.tablespaces)),
            DirectoryRow(name: "pg_wal", decision: .directory(.wal)),
            DirectoryRow(name: "pg_dynshmem", decision: .emptyDirectory),
            DirectoryRow(name: "pg_notify", decision: .emptyDirectory),
            DirectoryRow(name: "pg_replslot", decision: .emptyDirectory),
            DirectoryRow(name: "pg_serial", decision: .emptyDirectory),
            DirectoryRow(name: "pg_snapshots", decision: .emptyDirectory),
            DirectoryRow(name: "pg_stat_tmp", decision: .emptyDirectory),
            DirectoryRow(name: "pg_subtrans", decision: .emptyDirectory),
            DirectoryRow(name: "pg_twophase", decision: .directory(.essential)),
            DirectoryRow(name: "pg_xact", decision: .directory(.essential)),
            DirectoryRow(name: "pg_multixact", decision: .directory(.essential)),
            DirectoryRow(name: "pg_commit_ts", decision: .directory(.essential)),
            DirectoryRow(name: "pg_logical", decision: .directory(.essential)),
            DirectoryRow(name: "pg_stat", decision: .directory(.other)),
            DirectoryRow(name: "log", decision: .directory(.other)),
            DirectoryRow(name: "pg_log", decision: .directory(.other)),
            DirectoryRow(name: "conf.d", decision: .directory(.other)),
            DirectoryRow(name: "lost+found", decision: .skip),
        ])
    func topDirectories(_ row: DirectoryRow) {
        #expect(decide(row.name, .directory, in: .dataDirectory) == row.decision)
        // The names mean nothing further down.
        #expect(decide(row.name, .directory, in: .other) == .directory(.other))
    }

    @Test("pg_wal keeps archive_status and, from 17 on, summaries; both empty")
    func wal() {
        let seventeen = FilePolicy(majorVersion: 17, catalogVersion: 202_406_281)
        #expect(decide("archive_status", .directory, in: .wal) == .emptyDirectory)
        #expect(decide("archive_status", .symbolicLink, in: .wal) == .emptyDirectory)
        #expect(decide("summaries", .directory, in: .wal) == .skip)
        #expect(decide("summaries", .directory, in: .wal, policy: seventeen) == .emptyDirectory)
        #expect(decide("lost+found", .directory, in: .wal) == .skip)
        #expect(decide("000000010000000000000001", in: .wal) == .skip)
        #expect(decide("00000002.history", in: .wal) == .skip)
    }

    @Test("of a tablespace only our own version's directory is taken (lesson 32)")
    func tablespaces() throws {
        #expect(decide("16500", .symbolicLink, in: .tablespaces) == .tablespaceLink(oid: 16500))
        #expect(decide("16500", .directory, in: .tablespaces) == .directory(.tablespace))
        #expect(decide("x", .symbolicLink, in: .tablespaces) == .skipSpecial)
        #expect(decide("PG_15_202209061", .directory, in: .tablespace) == .directory(.databases))
        for name in ["PG_14_202107181", "PG_15_202209062", "PG_15_2022090610", "lost+found", "base"] {
            #expect(decide(name, .directory, in: .tablespace) == .skip, "\(name)")
        }
        #expect(decide("stray", in: .tablespace) == .skip)
        #expect(decide("5", .directory, in: .databases) == .directory(.database))
        #expect(decide("x5", .directory, in: .databases) == .directory(.other))
        #expect(decide("5", .directory, in: .other) == .directory(.other))
    }

    // MARK: Links and special files

    @Test("links: pg_wal and emptied directories become directories, essential ones are refused (lessons 30, 31)")
    func links() {
        #expect(decide("pg_wal", .symbolicLink, in: .dataDirectory) == .directory(.wal))
        for name in ["pg_replslot", "pg_stat_tmp"] {
            #expect(decide(name, .symbolicLink, in: .dataDirectory) == .emptyDirectory)
        }
        for name in ["base", "global", "pg_xact", "pg_tblspc", "pg_multixact", "pg_twophase"] {
            #expect(decide(name, .symbolicLink, in: .dataDirectory) == .refuseLink, "\(name)")
        }
        for place in [Place.databases, .database, .global, .essential] {
            #expect(decide("16384", .symbolicLink, in: place) == .refuseLink)
        }
        #expect(decide("PG_15_202209061", .symbolicLink, in: .tablespace) == .refuseLink)
        for name in ["log", "postgresql.conf", "server.crt"] {
            #expect(decide(name, .symbolicLink, in: .dataDirectory) == .skipSpecial, "\(name)")
        }
    }

    @Test("sockets, pipes and devices are left out with a word")
    func specialFiles() {
        for place in [Place.dataDirectory, .database, .other] {
            #expect(decide("s", .other, in: place) == .skipSpecial)
        }
    }
}
