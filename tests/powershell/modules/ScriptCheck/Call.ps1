using namespace System.Management.Automation.Language

# Every call of a command: known, with known parameters of one set, values that the parameters take.

# Facts about a command: Parameters name -> fact (@{ Switch; Type; Values; Open; Sets; Mandatory }), Sets, Positional, Kind.
$script:Shared = @{}
function Get-CommandFact {
    param([string]$Name)
    $cache = $script:Shared
    if ($script:Script.Functions.ContainsKey($Name)) { $cache = $script:Script.Facts }
    if ($cache.ContainsKey($Name)) { return $cache[$Name] }
    $fact = @{ Name = $Name; Kind = ''; Parameters = @{}; Sets = @('(All)'); Positional = 0; Order = @(); Changes = $false; ShouldProcess = $false; Mandatory = @() }
    if ($script:Script.Functions.ContainsKey($Name)) {
        $fact.Kind = 'own'
        foreach ($parameter in (Get-OwnParameter $script:Script.Functions[$Name])) {
            $key = $parameter.Name.VariablePath.UserPath
            $fact.Order += $key
            $fact.Parameters[$key] = @{ Switch = ($parameter.StaticType -eq [switch]); Type = 'own'; Mandatory = ($parameter.Extent.Text -match 'Mandatory(\s*=\s*\$true|\s*[,)])') }
        }
        $body = $script:Script.Functions[$Name].Body
        if ($null -ne $body.ParamBlock) { foreach ($attribute in $body.ParamBlock.Attributes) { if ($attribute.Extent.Text -match 'SupportsShouldProcess') { $fact.ShouldProcess = $true } } }
    } elseif ($script:Table.cmdlets.Contains($Name)) {
        $fact.Kind = 'cloud'
        $cmdlet = $script:Table.cmdlets[$Name]
        $fact.Changes = [bool]$cmdlet['changes']
        if ($cmdlet['sets']) { $fact.Sets = @($cmdlet['sets']) }
        foreach ($key in $cmdlet.parameters.Keys) {
            $one = $cmdlet.parameters[$key]
            $fact.Parameters[$key] = @{ Switch = ($one['type'] -eq 'SwitchParameter'); Type = $one['type']; Mandatory = [bool]$one['mandatory']; Values = $one['values']; Open = [bool]$one['open']; Sets = $one['sets'] }
        }
    } elseif ($script:Builtin.Contains($Name)) {
        $fact.Kind = 'builtin'
        if ($script:Builtin[$Name]['positional']) { $fact.Positional = $script:Builtin[$Name]['positional'] }
        foreach ($key in $script:Builtin[$Name].parameters) { $fact.Parameters[$key] = @{ Switch = $false; Type = 'builtin'; Mandatory = $false } }
        foreach ($key in $script:Builtin[$Name].switches) { $fact.Parameters[$key] = @{ Switch = $true; Type = 'builtin'; Mandatory = $false } }
    }
    foreach ($key in @($script:Table.common) + 'WhatIf', 'Confirm') {
        if ($fact.Parameters.ContainsKey($key)) { continue }
        if ('WhatIf', 'Confirm' -contains $key -and -not ($fact.ShouldProcess -or $fact.Kind -eq 'builtin' -and $Name -match '^(New-Item|Remove-Item|Set-Content)$')) { continue }
        $fact.Parameters[$key] = @{ Switch = ('Debug', 'Verbose', 'WhatIf', 'Confirm' -contains $key); Type = 'common'; Mandatory = $false }
    }
    foreach ($key in $fact.Parameters.Keys) { if ($fact.Parameters[$key].Mandatory) { $fact.Mandatory += $key } }
    $cache[$Name] = $fact
    $fact
}

# Splits a call into named arguments, splats and arguments without a name.
function Split-Call {
    param($Call, $Fact)
    $named = @{}
    $splats = @()
    $bare = @()
    $elements = $Call.CommandElements
    for ($i = 1; $i -lt $elements.Count; $i++) {
        $one = $elements[$i]
        if ($one -is [CommandParameterAst]) {
            $key = $one.ParameterName
            $argument = $one.Argument
            $known = $Fact.Parameters.ContainsKey($key)
            $takes = -not ($known -and $Fact.Parameters[$key].Switch)
            if ($null -eq $argument -and $takes -and $i + 1 -lt $elements.Count -and $elements[$i + 1] -isnot [CommandParameterAst]) { $i++; $argument = $elements[$i] }
            $named[$key] = $argument
        } elseif ($one -is [VariableExpressionAst] -and $one.Splatted) { $splats += $one }
        else { $bare += $one }
    }
    @{ Named = $named; Splats = $splats; Bare = $bare }
}

# The expressions given to a parameter of an own function in one call.
function Get-Argument {
    param($Call, [string]$Name)
    $fact = Get-CommandFact $Call.GetCommandName()
    $parts = Split-Call -Call $Call -Fact $fact
    if ($parts.Named.ContainsKey($Name)) { return @($parts.Named[$Name]) }
    foreach ($splat in $parts.Splats) {
        $table = Get-Value $splat
        if ($table.Keys.ContainsKey($Name)) { return @($table.Keys[$Name]) }
    }
    $left = @($fact.Order | Where-Object { -not $parts.Named.ContainsKey($_) })
    $index = [array]::IndexOf($left, $Name)
    if ($index -ge 0 -and $index -lt $parts.Bare.Count) { return @($parts.Bare[$index]) }
    if ($parts.Splats.Count -gt 0) { return @($parts.Splats) }
}

function Test-Call {
    foreach ($call in (Get-Node 'CommandAst')) {
        $first = $call.CommandElements[0]
        if ($first -is [ScriptBlockExpressionAst]) { continue }
        $name = $call.GetCommandName()
        if ($name) { Test-NamedCall -Call $call -Name $name -Via $null; continue }
        # & $name: looked at for each call of the function it stands in, so that a name and its parameters stay together.
        $scope = Get-Scope $call
        $sites = @($null)
        if ($scope -is [FunctionDefinitionAst] -and $script:Script.Calls.ContainsKey($scope.Name)) { $sites = @($script:Script.Calls[$scope.Name]) }
        foreach ($site in $sites) {
            $script:Script.Context = @{}
            if ($null -ne $site) { $script:Script.Context[$scope.Name] = $site }
            $names = Get-Value $first
            if ($names.Unknown -or $names.Texts.Count -eq 0) { Add-Finding -Rule 'Command' -At $call -Message "which command '$($first.Extent.Text)' is cannot be seen from the text" }
            foreach ($one in @($names.Texts)) { Test-NamedCall -Call $call -Name $one -Via $site }
            $script:Script.Context = @{}
        }
    }
}

$script:Never = '^(Read-Host|Write-Host|Clear-Host|Out-Host|Out-GridView|Invoke-Expression|Format-.*|Add-Type|Invoke-WebRequest|Invoke-RestMethod|Start-Process)$'

function Test-NamedCall {
    param($Call, [string]$Name, $Via)
    $at = $Call
    if ($null -ne $Via) { $at = $Via }
    if ($Name -match $script:Never) { Add-Finding -Rule 'Banned' -At $at -Message "$Name is not used in these scripts"; return }
    $fact = Get-CommandFact $Name
    if (-not $fact.Kind) {
        $alias = Get-Alias -Name ([System.Management.Automation.WildcardPattern]::Escape($Name)) -ErrorAction SilentlyContinue
        if ($alias) { Add-Finding -Rule 'Alias' -At $at -Message "'$Name' is an alias of $($alias.Definition)" }
        else { Add-Finding -Rule 'Command' -At $at -Message "'$Name' is neither in the table of cmdlets, nor of 5.1's commands, nor a function of the script" }
        return
    }
    $parts = Split-Call -Call $Call -Fact $fact
    $keys = @{}
    $unknown = $false
    foreach ($key in $parts.Named.Keys) { $keys[$key] = @($parts.Named[$key]) }
    foreach ($splat in $parts.Splats) {
        $table = Get-Value $splat
        if ($table.Unknown) { $unknown = $true; Add-Finding -Rule 'Splat' -At $at -Message "what @$($splat.VariablePath.UserPath) gives to $Name cannot be seen from the text" }
        foreach ($key in $table.Keys.Keys) { $keys[$key] = @($table.Keys[$key]) }
    }
    if ($parts.Bare.Count -gt $fact.Positional) { Add-Finding -Rule 'Positional' -At $at -Message "$Name`: '$($parts.Bare[0].Extent.Text)' is given without a parameter's name" }
    foreach ($key in $keys.Keys) {
        if (-not $fact.Parameters.ContainsKey($key)) { Add-Finding -Rule 'Parameter' -At $at -Message "$Name has no parameter -$key"; continue }
        foreach ($argument in $keys[$key]) { Test-Argument -At $at -Name $Name -Key $key -Fact $fact.Parameters[$key] -Argument $argument }
    }
    $fits = @($fact.Sets)
    foreach ($key in $keys.Keys) {
        if (-not $fact.Parameters.ContainsKey($key) -or -not $fact.Parameters[$key]['Sets']) { continue }
        $fits = @(foreach ($set in $fits) { if (@($fact.Parameters[$key]['Sets']) -contains $set) { $set } })
    }
    if ($fits.Count -eq 0) { Add-Finding -Rule 'ParameterSet' -At $at -Message "$Name`: no parameter set has all of -$(@($keys.Keys | Sort-Object) -join ', -')" }
    elseif (-not $unknown) {
        $missing = @()
        foreach ($set in $fits) {
            $missing = @(foreach ($key in $fact.Mandatory) {
                $one = $fact.Parameters[$key]
                if (-not $keys.ContainsKey($key) -and (-not $one['Sets'] -or @($one['Sets']) -contains $set)) { $key }
            })
            if ($missing.Count -eq 0) { break }
        }
        $piped = $Call.Parent -is [PipelineAst] -and $Call.Parent.PipelineElements.IndexOf($Call) -gt 0
        if ($missing.Count -gt 0 -and -not $piped -and $fact.Kind -ne 'own') { Add-Finding -Rule 'Mandatory' -At $at -Message "$Name needs -$($missing -join ', -')" }
    }
    if ($fact.Kind -eq 'cloud') { Test-CloudCall -At $at -Call $Call -Name $Name -Fact $fact -Keys $keys -Via $Via }
}

# A constant given to a parameter: of its enumeration, and no text for a Boolean.
function Test-Argument {
    param($At, [string]$Name, [string]$Key, $Fact, $Argument)
    if ($null -eq $Argument -or $Fact.Type -eq 'own' -or $Fact.Type -eq 'builtin') { return }
    $value = Get-Value $Argument
    foreach ($text in $value.Texts) {
        if ('Boolean', 'SwitchParameter' -contains $Fact.Type) { Add-Finding -Rule 'Value' -At $At -Message "$Name -$Key takes `$true or `$false, not the text '$text'" }
        elseif ($Fact['Values'] -and -not $Fact['Open'] -and @($Fact['Values']) -notcontains $text -and $text -notmatch '^@\w+@$') {
            Add-Finding -Rule 'Value' -At $At -Message "$Name -$Key does not take '$text': $(@($Fact['Values']) -join ', ')"
        }
    }
    if ($Fact.Type -notmatch '\[\]$|MultiValued' -and $Argument -isnot [StringConstantExpressionAst]) {
        $inner = Get-Inner $Argument
        if ($inner -is [ArrayLiteralAst] -or $inner -is [ArrayExpressionAst]) { Add-Finding -Rule 'Value' -At $At -Message "$Name -$Key takes one value, not a list" }
    }
}

# A cmdlet of the service: fails aloud, never asks by itself, and changes something only under ShouldProcess.
function Test-CloudCall {
    param($At, $Call, [string]$Name, $Fact, [hashtable]$Keys, $Via)
    $stop = $false
    if ($Keys.ContainsKey('ErrorAction')) { foreach ($one in $Keys['ErrorAction']) { if ((Get-Value $one).Texts -contains 'Stop') { $stop = $true } } }
    if (-not $stop) { Add-Finding -Rule 'ErrorAction' -At $At -Message "$Name without -ErrorAction Stop: it does not see the script's `$ErrorActionPreference" }
    if ($Fact.Parameters.ContainsKey('Confirm') -and $Fact.Parameters['Confirm'].Type -eq 'SwitchParameter') {
        $never = $Keys.ContainsKey('Confirm') -and @($Keys['Confirm'] | Where-Object { $_.Extent.Text -ne '$false' }).Count -eq 0
        if (-not $never) { Add-Finding -Rule 'Confirm' -At $At -Message "$Name without -Confirm:`$false: it may ask by itself" }
    }
    if ($Fact.Changes -and -not (Test-UnderShouldProcess -Node $Call -Seen @{})) { Add-Finding -Rule 'ShouldProcess' -At $At -Message "$Name stands outside `$PSCmdlet.ShouldProcess" }
}

# Inside `if ($PSCmdlet.ShouldProcess(..)) { .. }`, or in a function that is called from such places alone.
function Test-UnderShouldProcess {
    param($Node, [hashtable]$Seen)
    $child = $Node
    $up = $Node.Parent
    while ($null -ne $up -and $up -isnot [FunctionDefinitionAst]) {
        if ($up -is [IfStatementAst]) {
            foreach ($clause in $up.Clauses) { if ($clause.Item2 -eq $child -and $clause.Item1.Extent.Text -match '\$PSCmdlet\.ShouldProcess\(' -and $clause.Item1.Extent.Text -notmatch '-not\s*\(?\s*\$PSCmdlet|!\s*\$PSCmdlet|-or') { return $true } }
        }
        $child = $up
        $up = $up.Parent
    }
    if ($null -eq $up -or $Seen.ContainsKey($up.Name)) { return $false }
    $Seen[$up.Name] = $true
    $calls = @($script:Script.Calls[$up.Name])
    if ($null -eq $calls[0]) { return $false }
    foreach ($call in $calls) { if (-not (Test-UnderShouldProcess -Node $call -Seen $Seen)) { return $false } }
    $true
}
