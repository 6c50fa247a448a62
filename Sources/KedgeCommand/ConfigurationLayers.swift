// File, environment and options laid over one another, section by section, each value checked as it comes in.
import KedgeCodec
import KedgeCore

/// What `--cluster` and `--repository` (or their variables) select.
struct Selection: Sendable {
    let cluster: String?
    let repository: String?

    /// Throws `usage` where a selected section does not exist.
    func check(_ layers: ConfigurationLayers, path: String) throws(KedgeError) {
        for (kind, name) in [(SectionKind.cluster, cluster), (.repository, repository)] {
            let known = layers.names(kind)
            guard let name, !known.contains(name) else { continue }
            throw KedgeError(
                .usage, "there is no \(kind.rawValue) \"\(name)\" in configuration file \"\(path)\"",
                hint: NearestName.question(name, among: known)
                    + (known.isEmpty
                        ? "Add a [\(kind.rawValue) \(name)] section."
                        : "Configured: \(known.joined(separator: ", "))."))
        }
    }

    fileprivate func name(_ kind: SectionKind) -> String? { kind == .cluster ? cluster : repository }
}

/// Where a value was set; errors name it.
enum ValueSource: Sendable {
    case file(line: Int)
    case variable(String)
    case option(String)

    /// An error about the value set here.
    func error(_ what: String, hint: String, file: String) -> KedgeError {
        switch self {
        case .file(let line): ConfigurationFile.error(file, line, what, hint: hint)
        case .variable(let name):
            KedgeError(.configuration, "cannot use environment variable \"\(name)\": \(what)", hint: hint)
        case .option(let name): KedgeError(.usage, "cannot use option \"--\(name)\": \(what)", hint: hint)
        }
    }
}

/// One section with the values that hold for this run.
struct LayeredSection: Sendable {
    let kind: SectionKind
    let name: String
    /// Where it begins in the file.
    let line: Int
    private var values: [String: (value: ConfigurationValue, source: ValueSource)] = [:]
    /// What was set from outside of the file, as it was written; by key.
    private var overrides: [String: String] = [:]

    init(kind: SectionKind, name: String, line: Int) {
        self.kind = kind
        self.name = name
        self.line = line
    }

    /// Checks and sets a value; it hides an earlier one. Throws `configuration`, `usage` or `not-supported`.
    mutating func set(
        _ key: ConfigurationKey, _ text: String, _ source: ValueSource, file: String
    ) throws(KedgeError) {
        if key.name == "type", text == "sftp" {
            throw KedgeError(
                .notSupported, "cannot use repository \"\(name)\": type \(text) is not supported yet",
                hint: "Use type = local or type = s3.")
        }
        do {
            values[key.name] = (try key.kind.parse(text), source)
            if case .file = source {} else { overrides[key.name] = text }
        } catch {
            guard !key.mayHoldSecret else {
                throw source.error(
                    "the value of key \"\(key.name)\" \(error.problem)",
                    hint:
                        "\(error.hint)  It is not shown, since it may be the secret itself: that belongs into a file "
                        + "of its own, which only the user that runs kedge can read.", file: file)
            }
            throw source.error(
                "the value \"\(text)\" of key \"\(key.name)\" \(error.problem)", hint: error.hint, file: file)
        }
    }

    var overridden: [OverriddenKey] {
        overrides.sorted { $0.key < $1.key }.map {
            OverriddenKey(section: kind, name: name, key: $0.key, text: $0.value)
        }
    }

    /// The value that was set, or the table's default.
    private func value(_ name: String) -> ConfigurationValue? {
        if let value = values[name]?.value { return value }
        guard let key = ConfigurationKey.named(name) else { preconditionFailure("no configuration key \(name)") }
        return key.defaultText.flatMap { try? key.kind.parse($0) }
    }

    func text(_ key: String) -> String? {
        if case .text(let text) = value(key) { text } else { nil }
    }

    func integer(_ key: String) -> Int64? {
        if case .integer(let number) = value(key) { number } else { nil }
    }

    func list(_ key: String) -> [String]? {
        if case .list(let list) = value(key) { list } else { nil }
    }

    /// For keys whose table entry has a default, which a test reads for every one of them.
    func flag(_ key: String) -> Bool {
        guard case .flag(let flag) = value(key) else { preconditionFailure("key \(key) has no default") }
        return flag
    }

    func duration(_ key: String) -> Duration {
        guard case .duration(let duration) = value(key) else { preconditionFailure("key \(key) has no default") }
        return duration
    }

    /// For keys that have no default.
    func optionalDuration(_ key: String) -> Duration? {
        if case .duration(let duration) = value(key) { duration } else { nil }
    }

    func compression(_ key: String) -> CompressionChoice {
        guard case .compression(let setting) = value(key) else { preconditionFailure("key \(key) has no default") }
        return setting
    }

    /// A key that has no default. Throws `configuration` with the reason and an example.
    func requiredText(_ key: String, why: String, example: String, _ file: String) throws(KedgeError) -> String {
        if let text = text(key) { return text }
        throw ConfigurationFile.error(
            file, line, "[\(kind.rawValue) \(name)] has no key \"\(key)\"",
            hint: "Add it, such as \"\(key) = \(example)\": \(why).")
    }

    /// An error about the value of `key`, wherever it was set.
    func error(_ key: String, _ what: String, hint: String, _ file: String) -> KedgeError {
        (values[key]?.source ?? .file(line: line)).error(what, hint: hint, file: file)
    }
}

/// All sections of the file, and what was laid over them.
struct ConfigurationLayers: Sendable {
    private(set) var sections: [LayeredSection] = []
    private let path: String

    /// The file's layer. Throws `configuration` for sections and keys that kedge does not know.
    init(file: ConfigurationFile) throws(KedgeError) {
        path = file.path
        for section in file.sections {
            guard let kind = SectionKind(rawValue: section.kind) else {
                throw ConfigurationFile.error(
                    path, section.line, "section kind \"\(section.kind)\" is unknown",
                    hint: NearestName.question(section.kind, among: SectionKind.allCases.map(\.rawValue))
                        + "Sections are [cluster NAME] and [repository NAME].")
            }
            var layered = LayeredSection(kind: kind, name: section.name, line: section.line)
            // The type first: what other types need would only be reported as unknown.
            let entries = section.entries.filter { $0.key == "type" } + section.entries.filter { $0.key != "type" }
            for entry in entries {
                guard let key = ConfigurationKey.named(entry.key), key.section == kind else {
                    throw ConfigurationLayers.unknownKey(entry, in: section, kind, path)
                }
                try layered.set(key, entry.value, .file(line: entry.line), file: path)
            }
            sections.append(layered)
        }
    }

    func names(_ kind: SectionKind) -> [String] { sections.filter { $0.kind == kind }.map(\.name) }

    private static func unknownKey(
        _ entry: ConfigurationEntry, in section: ConfigurationSection, _ kind: SectionKind, _ path: String
    ) -> KedgeError {
        let names = ConfigurationKey.all(in: kind).map(\.name)
        let hint =
            if let other = ConfigurationKey.named(entry.key) {
                "It belongs into a [\(other.section.rawValue) NAME] section."
            } else {
                NearestName.question(entry.key, among: names)
                    + "The keys of a \(section.kind) are: \(names.joined(separator: ", "))."
            }
        return ConfigurationFile.error(
            path, entry.line, "key \"\(entry.key)\" is unknown in [\(section.kind) \(section.name)]", hint: hint)
    }

    // MARK: - Environment

    /// Lays the environment over the file and returns warnings about variables that mean nothing.
    mutating func apply(variables: [EnvironmentVariable], selection: Selection) throws(KedgeError) -> [String] {
        let globals = ["KEDGE_CONFIG", "KEDGE_CLUSTER", "KEDGE_REPOSITORY", "KEDGE_LOG_LEVEL"]
        var warnings: [String] = []
        var forNamed: [(index: Int, key: ConfigurationKey, variable: EnvironmentVariable)] = []
        for variable in variables where !globals.contains(variable.name) {
            let rest = String(variable.name.dropFirst("KEDGE_".count))
            if let key = ConfigurationKey.all.first(where: { $0.environmentName == rest }) {
                let index = try selected(key, selection, .variable(variable.name))
                try sections[index].set(key, variable.value, .variable(variable.name), file: path)
                continue
            }
            let targets = namedTargets(rest)
            guard targets.count < 2 else {
                throw ValueSource.variable(variable.name).error(
                    "it could mean several sections or keys",
                    hint: "Rename a section so that names differ in more than case and punctuation.", file: path)
            }
            if let target = targets.first {
                forNamed.append((target.index, target.key, variable))
            } else {
                warnings.append("environment variable \"\(variable.name)\" is ignored: no key or section fits its name")
            }
        }
        for (index, key, variable) in forNamed {
            try sections[index].set(key, variable.value, .variable(variable.name), file: path)
        }
        return warnings
    }

    /// The sections and keys that `REPOSITORY_MAIN_PATH` may mean.
    private func namedTargets(_ rest: String) -> [(index: Int, key: ConfigurationKey)] {
        var targets: [(Int, ConfigurationKey)] = []
        for (index, section) in sections.enumerated() {
            let prefix = ConfigurationKey.environmentName("\(section.kind.rawValue)-\(section.name)-")
            guard rest.hasPrefix(prefix) else { continue }
            let keyName = rest.dropFirst(prefix.count)
            for key in ConfigurationKey.all(in: section.kind) where key.environmentName == keyName {
                targets.append((index, key))
            }
        }
        return targets
    }

    // MARK: - Options

    /// Lays the options over everything else.
    mutating func apply(overrides: [ConfigurationOverride], selection: Selection) throws(KedgeError) {
        for override in overrides {
            guard let key = ConfigurationKey.named(override.key) else {
                preconditionFailure("the argument parser let the unknown key \(override.key) pass")
            }
            let index = try selected(key, selection, .option(key.name))
            try sections[index].set(key, override.value, .option(key.name), file: path)
        }
    }

    /// The section that a key without a section's name is for.
    private func selected(
        _ key: ConfigurationKey, _ selection: Selection, _ source: ValueSource
    ) throws(KedgeError) -> Int {
        let kind = key.section
        let chosen = selection.name(kind)
        let candidates = sections.indices.filter { index in
            sections[index].kind == kind && (chosen == nil || sections[index].name == chosen)
        }
        if candidates.count == 1 { return candidates[0] }
        guard !candidates.isEmpty else {
            throw source.error(
                "the configuration file has no [\(kind.rawValue) NAME] section", hint: "Add one first.", file: path)
        }
        throw source.error(
            "it could be for several: \(names(kind).joined(separator: ", "))",
            hint: "Choose one with \"--\(kind.rawValue) \(names(kind)[0])\".", file: path)
    }
}
