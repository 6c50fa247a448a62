// That no restore removes a repository or a key that lies in a directory which it clears: it refuses before the first
// change, with and without --delta.
import KedgeCore
import KedgeRestore
import KedgeTestSupport
import Testing

@Suite struct KeptPathRestoreTests {
    private func restore(
        _ place: DeltaPlace, delta: Bool, dryRun: Bool = false, keeping paths: [String]
    ) throws(KedgeError) -> Restore.Outcome {
        var options = Restore.Options(
            clusterName: "main", request: RestoreRequest(target: .immediate), pgdata: RawPath(place.target),
            configuredPgdata: "/nowhere", tablespaces: [16384: RawPath(place.tablespace)],
            restoreCommand: RestoreCommandLine(words: ["kedge"]), processMax: 2,
            workDirectory: RawPath(place.directory("work")), isDryRun: dryRun)
        options.isDelta = delta
        options.keptPaths = paths.map { KeptPath(.repository, "repository \"main\"", at: RawPath($0)) }
        return try Restore(place.repository.source, options).run()
    }

    @Test("a restore that would remove the repository, the key or a link to it is refused before the first change")
    func refused() throws {
        let place = try DeltaPlace(large: false)
        let inside = [
            place.target + "/kedge", place.target + "/base/1/k.key",
            place.tablespace + "/\(DeltaPlace.version)/repository",
        ]
        for path in inside {
            let error = #expect(throws: KedgeError.self) { _ = try restore(place, delta: false, keeping: [path]) }
            #expect(error?.code == .usage)
            #expect(try !FileSystem.exists(RawPath(place.target)))
        }
        _ = try restore(place, delta: false, keeping: [place.directory("kedge"), place.target + "2"])
        for path in inside {
            try place.run("mkdir", "-p", path)
            try place.write(path + "/kedge.json", Array("{}".utf8))
        }
        let before = try place.look()
        for path in inside {
            for isDry in [true, false] {
                let error = #expect(throws: KedgeError.self) {
                    _ = try restore(place, delta: true, dryRun: isDry, keeping: ["/elsewhere", path])
                }
                #expect(error?.code == .usage)
                #expect(
                    error?.detail?.contains("Repository \"main\", at \"\(path)\", lies in ") == true,
                    "\(error?.detail ?? "")")
            }
        }
        #expect(try place.look() == before)
    }
}
