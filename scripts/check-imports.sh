#!/usr/bin/env bash
# Fails when an import goes the wrong way between the modules of src/, or a library is used where it does not belong.
# Modules under #[cfg(test)], and files called tests.rs, may import what they like.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

# module: the modules it may import
modules='
domain:
telemetry:
handlers:    domain
resilience:  domain ports
config:      domain handlers resilience
ports:       domain
consume:     domain ports resilience telemetry
routing:     consume domain handlers ports resilience telemetry
delivery:    consume domain ports resilience telemetry
review:      consume domain ports resilience telemetry
adapters:    consume domain ports resilience telemetry
actors:      consume delivery domain handlers ports resilience routing telemetry
http:        actors delivery domain ports resilience telemetry
app:         actors adapters config consume delivery domain handlers http ports resilience review routing telemetry
cli:         actors adapters app config consume delivery domain handlers http ports resilience review routing telemetry
main:        cli
'

# crates, and where in src/ they may be named (`backoff::` is the crate, `backoff` would be any word)
crates='
tokio tokio_util actix actix_rt actix_web   not in   domain handlers
rdkafka sqlx lettre reqwest jsonwebtoken    only in  adapters
backoff::                                   only in  resilience/retry.rs
'

exec perl - "$modules" "$crates" <<'PERL'
use strict;
use warnings;
use File::Find;

my ($modules, $crates) = @ARGV;
my (%may, @bans, @files);

for (grep /\S/, split /\n/, $modules) {
    my ($module, $targets) = /^(\w+):(.*)/ or die "check-imports: not a rule: $_\n";
    $may{$module} = { map { $_ => 1 } split ' ', $targets };
}
for (grep /\S/, split /\n/, $crates) {
    my ($names, $kind, $places) = /^(.+?)\s+(not|only) in\s+(.+)/ or die "check-imports: not a rule: $_\n";
    my $name = join '|', map { quotemeta($_) . (/\w$/ ? '\b' : '') } split ' ', $names;
    my $place = join '|', map quotemeta, split ' ', $places;
    push @bans, {
        name  => qr/\b(?:$name)/,
        place => qr{^src/(?:$place)(?:/|\.rs$|$)},
        holds => $kind eq 'not',
        rule  => "$kind in $places",
    };
}

sub blank { (my $text = shift) =~ s/[^\n]/ /g; $text }

# Leaves code alone: comments, strings and test modules become blanks, lines stay where they are.
sub code_of {
    my $text = shift;
    $text =~ s{
        ( //[^\n]*
        | (?<block>/\*(?:[^/*]++|/(?!\*)|\*(?!/)|(?&block))*+\*/)
        | \bb?r(?<hashes>\#*)".*?"\k<hashes>
        | "(?:[^"\\]++|\\.)*+"
        | '(?:[^'\\\n]|\\[^\n][^'\n]*)'
        )
    }{blank($1)}gesx;
    $text =~ s/(\#\[cfg\(test\)\]\s*(?:\#\[[^\]]*\]\s*)*(?:pub(?:\([^)]*\))?\s+)?mod\s+\w+\s*(?<body>\{(?:[^{}]++|(?&body))*+\}))/blank($1)/ge;
    return $text;
}

my $faults = 0;
sub fault {
    my ($file, $code, $at, $source, $rule) = @_;
    my $line = 1 + (substr($code, 0, $at) =~ tr/\n//);
    (my $shown = $source->[$line - 1]) =~ s/^\s+|\s+$//g;
    print "$file:$line: $shown   [$rule]\n";
    $faults++;
}

find({ no_chdir => 1, wanted => sub { push @files, $_ if /\.rs$/ && !m{^src/lib\.rs$|/tests\.rs$} } }, 'src');

for my $file (sort @files) {
    my ($module) = $file =~ m{^src/(\w+)};
    if (!$may{$module}) {
        print "$file: the module $module has no rule in scripts/check-imports.sh\n";
        $faults++;
        next;
    }
    my $text = do { local (@ARGV, $/) = $file; <> };
    my @source = split /\n/, $text;
    my $code = code_of($text);
    my $allowed = join(', ', sort keys %{ $may{$module} }) || 'nothing';

    my $check = sub {
        my ($target, $at) = @_;
        return if $target eq $module || !$may{$target} || $may{$module}{$target};
        fault($file, $code, $at, \@source, "$module may import: $allowed");
    };
    # The crate's root, by name or by climbing to it, then one path or a braced list of paths.
    my ($below) = $file =~ m{^src/(.*?)(?:/mod)?\.rs$};
    my $depth = 1 + ($below =~ tr{/}{});
    my $root = qr/\b(?:crate|notification_service|super(?:\s*::\s*super){@{[$depth - 1]}})\s*::\s*/;
    while ($code =~ /$root(?:(?<one>\w+)|(?<list>\{(?:[^{}]++|(?&list))*+\}))/g) {
        if (defined $+{one}) {
            $check->($+{one}, $-[0]);
            next;
        }
        my ($list, $start) = ($+{list}, $+[0] - length $+{list});
        1 while $list =~ s/(?<!^)(\{[^{}]*\})/blank($1)/e;
        $check->($1, $start + $-[1]) while $list =~ /[{,]\s*(\w+)/g;
    }
    for my $ban (@bans) {
        next if ($file =~ $ban->{place}) != $ban->{holds};
        fault($file, $code, $-[0], \@source, "$& $ban->{rule}") while $code =~ /$ban->{name}/g;
    }
}

if ($faults) {
    print "check-imports: $faults wrong\n";
    exit 1;
}
print 'check-imports: ', scalar @files, " files, every import goes the right way\n";
PERL
