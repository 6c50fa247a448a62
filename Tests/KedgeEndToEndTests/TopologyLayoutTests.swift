// That a cluster comes back from whatever directories it was laid out in: pg_wal elsewhere, a data directory behind a
// link or of an odd name, group access, Debian's configuration outside, other segment sizes, no checksums.
import Glibc
import KedgeCore
import KedgePostgres
import KedgeTestSupport
import Testing

@Suite(.serialized, .enabled(if: PostgresInstallation.serversAreEnabled, "needs PostgreSQL: scripts/test.sh"))
struct TopologyLayoutTests {
    private func fill(_ cluster: TopologyCluster) throws {
        try cluster.server.psql(
            """
            create table t (i int primary key, v text);
            insert into t select i, md5(i::text) from generate_series(1, 20000) i
            """)
    }

    /// Backs up, changes something, and restores to the end of the WAL.
    private func roundTrip(_ cluster: TopologyCluster, _ arguments: [String] = []) throws -> PostgresTestServer {
        try fill(cluster)
        try cluster.backUp()
        try cluster.server.psql("update t set v = 'later' where i % 7 = 0")
        try cluster.archiveEverything()
        let copy = try cluster.restore(arguments)
        try cluster.expectSame(copy)
        return copy
    }

    private func mode(_ cluster: TopologyCluster, _ path: String) throws -> String {
        try String(cluster.shell("stat -c %a \"$1\"", path).dropLast())
    }

    @Test(
        "pg_wal and archive_status behind links come back as directories, or as the link asked for (lessons 30, 31)",
        arguments: PostgresInstallation.all)
    func linkedWAL(_ installation: PostgresInstallation) throws {
        var layout = TopologyCluster.Layout()
        layout.installation = installation
        layout.groupAccess = true
        let cluster = try TopologyCluster(layout) { cluster in
            try cluster.shell(
                """
                mkdir wal status; mv data/pg_wal/archive_status/* status 2>/dev/null || true
                rmdir data/pg_wal/archive_status; mv data/pg_wal/* wal; rmdir data/pg_wal
                ln -s ../wal data/pg_wal; ln -s "$PWD/status" wal/archive_status; chmod 750 wal status
                """)
        }
        let copy = try roundTrip(cluster)
        #expect(try cluster.shell("find \"$1/pg_wal\" -maxdepth 0 -printf %y", copy.dataDirectory) == "d")
        #expect(
            try cluster.shell("find \"$1/pg_wal/archive_status\" -maxdepth 0 -printf %y", copy.dataDirectory) == "d")
        #expect(try mode(cluster, copy.dataDirectory) == "750")
        #expect(try mode(cluster, copy.dataDirectory + "/base") == "750")
        try copy.stop()

        // With its own place for the WAL, which must be free and of its own.
        try cluster.shell("mkdir full; touch full/000000010000000000000001")
        let target = cluster.place("with-waldir")
        for (waldir, status) in [(cluster.place("full"), 1), (target + "/pg_wal2", 2), (cluster.place("wal"), 1)] {
            let refused = try cluster.attempt(["restore", "--pgdata", target, "--waldir", waldir])
            #expect(refused.status == .exited(Int32(status)), "\(refused.errorText)")
            #expect(refused.errorText.hasPrefix("kedge: error: cannot let pg_wal lead to "), "\(refused.errorText)")
            #expect(access(target, F_OK) != 0)
        }
        let linked = try cluster.restore(["--waldir", cluster.place("own")], to: target)
        #expect(try cluster.shell("readlink \"$1/pg_wal\"", target) == cluster.place("own\n"))
        #expect(try mode(cluster, cluster.place("own")) == "750")
        try cluster.expectSame(linked)
        #expect(try cluster.shell("ls own | grep -c '^0'") != "0\n")
        let text = try cluster.kedge(["restore", "--pgdata", cluster.place("x"), "--dry-run"])
        #expect(
            text.contains(
                "pg_wal: a plain directory, where the original's was a link to \"../wal\" (--waldir DIR makes a link)\n"
            ))
    }

    @Test(
        "the data directory gets its own mode back, also where its directories have another one",
        .enabled(if: PostgresInstallation.soakIsEnabled, "part of the long run"), arguments: PostgresInstallation.all)
    func mode(_ installation: PostgresInstallation) throws {
        var layout = TopologyCluster.Layout()
        layout.installation = installation
        // As somebody does who opens just the top to a monitoring group.
        let cluster = try TopologyCluster(layout) { try $0.shell("chmod 750 data") }
        let copy = try roundTrip(cluster)
        #expect(try mode(cluster, copy.dataDirectory) == "750")
        try cluster.server.stop()
        try copy.stop()
        try cluster.shell("chmod 700 data; chmod 750 data/base")
        try cluster.server.start()
        try cluster.backUp()
        #expect(try mode(cluster, cluster.restore().dataDirectory) == "700")
    }

    @Test(
        "a data directory behind a link, of a name that breaks naive configuration files (lessons 30, 49)",
        arguments: PostgresInstallation.all)
    func oddName(_ installation: PostgresInstallation) throws {
        let name = "a 'b' \"c\" = #d [é] \\back%f $(x) ;"
        var layout = TopologyCluster.Layout()
        layout.installation = installation
        layout.dataName = name
        let cluster = try TopologyCluster(layout)
        let copy = try roundTrip(cluster)
        try copy.stop()
        // The same by a link that the configuration names, while the server knows the real path.
        try cluster.shell("ln -s \"$1\" link", name)
        try cluster.write(
            cluster.configuration,
            try #require(readTextFile(cluster.configuration)).split(separator: "\n").map {
                $0.hasPrefix("pgdata") ? "pgdata = \(cluster.place("link"))" : String($0)
            }.joined(separator: "\n"))
        try cluster.backUp()
        try cluster.server.psql("update t set v = 'again' where i % 5 = 0")
        try cluster.archiveEverything()
        // Into the configured directory, which is behind the link: it is the original's place, so it archives.
        let dump = try cluster.dump(cluster.server)
        try cluster.server.stop()
        try cluster.shell("mkdir away; mv \"$1\" away", name)
        let dangling = try cluster.attempt(["restore"])
        #expect(dangling.errorText.contains("is a link that leads nowhere"), "\(dangling.errorText)")
        try cluster.shell("mkdir -m 700 \"$1\"", name)
        let text = try cluster.kedge(["restore"])
        #expect(text.contains("archiving: as configured; this is the original's place\n"))
        try cluster.verify(cluster.dataDirectory)
        try cluster.server.start()
        try cluster.server.wait(until: "select not pg_is_in_recovery()")
        #expect(try cluster.dump(cluster.server) == dump)
        try cluster.server.psql("insert into t values (-1, 'after')")
        try cluster.archiveEverything()
        try cluster.backUp()
    }

    @Test("a data directory whose name is no UTF-8 is refused by name, never another one used, and reached over a link")
    func notUTF8() throws {
        let layout = TopologyCluster.Layout()
        // Its name gets a byte that is no UTF-8; PostgreSQL and kedge reach it over a link.
        let cluster = try TopologyCluster(layout)
        try fill(cluster)
        try cluster.server.stop()
        try cluster.shell("mv data \"$(printf 'd\\351')\"; ln -s \"$(printf 'd\\351')\" data")
        try cluster.server.start()
        try cluster.backUp()
        let before = try cluster.shell("ls")
        let script = "exec \"$1\" --config \"$2\" restore --pgdata \"$(printf 'copy\\351')\""
        var command = ServerUser.command([
            "sh", "-c", script, "sh", try KedgeBinary.path(), cluster.configuration,
        ])
        command.workingDirectory = cluster.place.path
        let refused = try command.run()
        #expect(refused.status == .exited(2))
        #expect(
            refused.errorText.hasSuffix(
                """
                kedge: error: cannot read argument 5 "copy\\xe9": it is not UTF-8
                hint: Reach a file of such a name by another path, such as a symbolic link with a name in UTF-8.
                code: usage

                """), "\(refused.errorText)")
        #expect(try cluster.shell("ls") == before)
        try cluster.shell("mkdir -m 700 \"$(printf 'copy\\351')\"; ln -s \"$(printf 'copy\\351')\" target")
        let copy = try cluster.restore(to: cluster.place("target"))
        try cluster.expectSame(copy)
        // In the configuration file the line is named.
        try cluster.shell("sed \"s/^pgdata.*/pgdata = $(printf 'd\\351')/\" kedge.conf > bad.conf")
        let bad = try KedgeBinary.run(["--config", cluster.place("bad.conf"), "info"])
        #expect(bad.status == .exited(2))
        #expect(bad.errorText.contains("UTF-8"), "\(bad.errorText)")
    }

    @Test(
        "configuration files behind links and of odd names are kept and can be started with",
        .enabled(if: PostgresInstallation.soakIsEnabled, "part of the long run"), arguments: PostgresInstallation.all)
    func configurationOutside(_ installation: PostgresInstallation) throws {
        var layout = TopologyCluster.Layout()
        layout.installation = installation
        let cluster = try TopologyCluster(layout) { cluster in
            let etc = cluster.place("etc dir")
            try cluster.shell(
                """
                mkdir -p "etc dir/conf.d"; mv data/pg_hba.conf data/pg_ident.conf "etc dir"
                mv data/postgresql.conf "etc dir/real.conf"
                echo "work_mem = '5MB'" > "etc dir/conf.d/a b.conf"; echo "# empty" > "etc dir/conf.d/none.conf"
                echo "include_dir 'conf.d'" >> "etc dir/real.conf"
                """)
            try cluster.write(
                cluster.place("etc dir/more.conf"),
                "hba_file = '\(etc)/pg_hba.conf'\nident_file = '\(etc)/pg_ident.conf'")
            try cluster.shell("echo \"include 'more.conf'\" >> 'etc dir/real.conf'")
            // The server reads what lies in the data directory: a link to the outside.
            try cluster.shell(
                "ln -s '../etc dir/real.conf' data/postgresql.conf; ln -s '../etc dir/conf.d' data/conf.d")
            try cluster.shell("ln -s '../etc dir/more.conf' data/more.conf")
        }
        #expect(try cluster.server.value("show work_mem") == "5MB")
        try fill(cluster)
        try cluster.backUp()
        try cluster.archiveEverything()
        let copy = cluster.newCopyName()
        let text = try cluster.kedge(["restore", "--pgdata", copy, "--extra-files", cluster.place("extra")])
        for file in ["real.conf", "pg_hba.conf", "pg_ident.conf", "more.conf"].map({ "etc dir/" + $0 })
            + ["data/conf.d/a b.conf"]
        {
            #expect(text.contains("\"\(cluster.place(file))\""), "\(file) in \(text)")
            let one = try cluster.shell("cat \"$1\"", cluster.place(file))
            let other = try cluster.shell("cat \"$1\"", cluster.place("extra") + cluster.place(file))
            #expect(one == other)
        }
        try cluster.verify(copy)
        try cluster.shell("cp -r extra\"$PWD/etc dir/\"* \"$1\"; mv \"$1/real.conf\" \"$1/postgresql.conf\"", copy)
        try cluster.shell("sed -i '/^include/d' \"$1/postgresql.conf\"", copy)
        let server = try PostgresTestServer(dataDirectory: copy, installation: installation)
        try server.start()
        try server.wait(until: "select not pg_is_in_recovery()")
        try cluster.expectSame(server)
    }

    @Test("Debian's layout, with no configuration in the data directory: the copy starts with what the backup kept")
    func debian() throws {
        let cluster = try TopologyCluster { cluster in
            let etc = cluster.place("etc/15/main")
            try cluster.shell("mkdir -p \"$1/conf.d\"; mv data/*.conf \"$1\"; mv \"$1\"/*.auto.conf data", etc)
            try cluster.write(
                etc + "/conf.d/own.conf",
                """
                data_directory = '\(cluster.dataDirectory)'
                hba_file = '\(etc)/pg_hba.conf'
                ident_file = '\(etc)/pg_ident.conf'
                work_mem = '5MB'
                """)
            try cluster.shell("echo \"include_dir 'conf.d'\" >> \"$1/postgresql.conf\"", etc)
            cluster.server.startArguments = ["-c", "config_file=\(etc)/postgresql.conf"]
        }
        try fill(cluster)
        try cluster.backUp()
        try cluster.server.psql("update t set v = 'later' where i % 7 = 0")
        try cluster.archiveEverything()
        let (target, extra) = (cluster.newCopyName(), cluster.place("extra"))
        let text = try cluster.kedge([
            "restore", "--pgdata", target, "--extra-files", extra, "--target-action", "promote",
        ])
        let configuration = extra + cluster.place("etc/15/main/postgresql.conf")
        #expect(text.contains("-c config_file=\(configuration) -c data_directory=\(target)"), "\(text)")
        try cluster.verify(target)
        // The original is gone, with its configuration.
        let dump = try cluster.dump(cluster.server)
        try cluster.server.stop()
        try cluster.shell("mkdir away; mv data etc away")
        let copy = try PostgresTestServer(dataDirectory: target)
        copy.startArguments = ["-c", "config_file=\(configuration)", "-c", "data_directory=\(target)"]
        for name in ["hba", "ident"] {
            copy.startArguments += ["-c", "\(name)_file=\(extra)\(cluster.place("etc/15/main/pg_\(name).conf"))"]
        }
        try copy.start()
        try copy.wait(until: "select not pg_is_in_recovery()")
        #expect(try copy.value("show work_mem") == "5MB")
        #expect(try copy.value("show archive_mode") == "off")
        #expect(try cluster.dump(copy) == dump)
        try cluster.check(copy)
    }

    @Test(
        "WAL segments of other sizes, with checksums and without",
        arguments: PostgresInstallation.all,
        PostgresInstallation.soakIsEnabled ? [1, 2, 64, 1024] : [64])
    func segmentSizes(_ installation: PostgresInstallation, _ size: Int) throws {
        var layout = TopologyCluster.Layout()
        layout.installation = installation
        layout.walSegmentMiB = size
        layout.dataChecksums = false
        let cluster = try TopologyCluster(layout)
        let copy = try roundTrip(cluster)
        #expect(try copy.value("show wal_segment_size") == (size == 1024 ? "1GB" : "\(size)MB"))
        #expect(try copy.value("show data_checksums") == "off")
    }
}
