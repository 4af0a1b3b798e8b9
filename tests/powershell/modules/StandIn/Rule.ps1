# Mail flow rules: their list is ordered by Priority, without gaps.

$script:RuleOwn = @('Name', 'Priority', 'Mode', 'Enabled', 'Comments', 'Confirm', 'WhatIf', 'Identity')
$script:RulePairs = @(
    @('HeaderContainsMessageHeader', 'HeaderContainsWords'), @('HeaderMatchesMessageHeader', 'HeaderMatchesPatterns'),
    @('ExceptIfHeaderContainsMessageHeader', 'ExceptIfHeaderContainsWords'), @('ExceptIfHeaderMatchesMessageHeader', 'ExceptIfHeaderMatchesPatterns'),
    @('SetHeaderName', 'SetHeaderValue')
)
$script:RuleDefault = @{ RuleErrorAction = 'Ignore'; SenderAddressLocation = 'Header'; StopRuleProcessing = $false; RuleSubType = 'None'; UseLegacyRegex = $false; RecipientAddressType = 'Resolved' }

function Merge-StandInRule {
    param($Tenant, $Stored, [hashtable]$Given)
    $facts = $script:Table.cmdlets['New-TransportRule'].parameters
    foreach ($key in @($Given.Keys)) {
        $fact = $facts[$key]
        if (-not $fact -or ($script:RuleOwn -contains $key -and $key -ne 'Comments' -and $key -ne 'Mode')) { continue }
        $value = $Given[$key]
        if ($fact.type -match '\[\]$|MultiValued') {
            $value = Merge-StandInList -Old $Stored[$key] -New $value
            if ($value.Count -eq 0) { $value = $null }
            foreach ($word in @($value)) {
                if ($fact.type -match '^(Word|Pattern)' -and ([string]$word).Length -gt 128) {
                    throw (New-StandInFailure -Kind 'ParameterBindingValidation' -Message "$key`: a word has at most 128 characters")
                }
            }
            if ($null -ne $value -and $key -match 'MemberOf$') {
                $value = ConvertTo-StandInList @($value | ForEach-Object { (Find-StandInGroup -Tenant $Tenant -Identity $_)['PrimarySmtpAddress'] })
            }
        } elseif ($fact.type -eq 'ByteQuantifiedSize' -and $value) { $value = Format-StandInSize $value }
        elseif ($fact.type -eq 'OutboundConnectorIdParameter' -and $value) {
            $value = (Find-StandInObject -List $Tenant.Outbound -Identity $value -What 'outbound connector')['Name']
        } elseif ($value -is [datetime]) { $value = ConvertTo-StandInUtc $value }
        elseif ($value -is [string] -and $value -eq '' -and $key -ne 'Comments') { $value = $null }
        elseif ($fact['values'] -and -not $fact['open']) {
            foreach ($known in $fact['values']) { if ($known -eq $value) { $value = $known } }
        }
        $Stored[$key] = $value
    }
    $Stored['WhenChanged'] = $script:World.Clock
    if ($null -ne $Stored['Comments'] -and $Stored['Comments'].Length -gt 1024) {
        throw (New-StandInFailure -Kind 'ParameterBindingValidation' -Message 'Comments has at most 1024 characters')
    }
    foreach ($pair in $script:RulePairs) {
        if (($null -eq $Stored[$pair[0]]) -ne ($null -eq $Stored[$pair[1]])) {
            throw (New-StandInFailure -Kind 'ArgumentException' -Message "$($pair[0]) and $($pair[1]) must be used together")
        }
    }
}

# '22.5MB' or 23592960 as the service shows it: 22.5 MB (23,592,960 bytes).
function Format-StandInSize {
    param([string]$Value)
    if ($Value -match '\(([\d,]+) bytes\)\s*$') { $bytes = [double]($Matches[1] -replace ',', '') }
    elseif ($Value -match '^\s*([\d.]+)\s*(B|KB|MB|GB|TB)?\s*$') {
        $unit = @{ '' = 1; B = 1; KB = 1KB; MB = 1MB; GB = 1GB; TB = 1TB }[[string]$Matches[2]]
        $bytes = [math]::Floor([double]::Parse($Matches[1], [cultureinfo]::InvariantCulture) * $unit)
    } else { throw (New-StandInFailure -Kind 'ParameterBindingException' -Message "'$Value' is not a size") }
    $shown = $bytes
    $names = 'B', 'KB', 'MB', 'GB', 'TB'
    $step = 0
    while ($shown -ge 1024 -and $step -lt 4) { $shown = $shown / 1024; $step++ }
    [string]::Format([cultureinfo]::InvariantCulture, '{0} {1} ({2:N0} bytes)', [math]::Round($shown, 3), $names[$step], $bytes)
}

function Find-StandInGroup {
    param($Tenant, $Identity)
    foreach ($one in $Tenant.Groups) {
        foreach ($key in 'PrimarySmtpAddress', 'Name', 'Alias', 'DisplayName', 'Guid', 'ExternalDirectoryObjectId') { if ([string]$one[$key] -eq [string]$Identity) { return $one } }
    }
    throw (New-StandInFailure -Kind 'ManagementObjectNotFoundException' -Message "The group '$Identity' couldn't be found.")
}

function Update-StandInPriority {
    param($Tenant)
    for ($i = 0; $i -lt $Tenant.Rules.Count; $i++) { $Tenant.Rules[$i]['Priority'] = $i }
}

function Move-StandInRule {
    param($Tenant, $Rule, [int]$Priority)
    $others = $Tenant.Rules.Count
    if ($Tenant.Rules.Contains($Rule)) { $others-- }
    if ($Priority -lt 0 -or $Priority -gt $others) {
        throw (New-StandInFailure -Kind 'InvalidPriorityException' -Message "Priority must lie between 0 and $others")
    }
    [void]$Tenant.Rules.Remove($Rule)
    $Tenant.Rules.Insert($Priority, $Rule)
    Update-StandInPriority -Tenant $Tenant
}

# As Get-TransportRule shows a rule: every predicate and action, those not used without a value.
function Show-StandInRule {
    param($Tenant, $Stored)
    $all = [ordered]@{}
    $conditions = @()
    $exceptions = @()
    $text = [System.Text.StringBuilder]::new()
    foreach ($key in $Stored.Keys) {
        $all[$key] = $Stored[$key]
        if ($null -eq $Stored[$key]) { continue }
        # The text for people holds every value, also those of headers that are secret.
        [void]$text.AppendLine("$key '" + (@($Stored[$key]) -join "' or '") + "'")
        if ($script:RuleOwn -contains $key -or $key -notmatch 'Contains|Matches|Scope|MemberOf|SizeOver|MessageType') { continue }
        if ($key -match '^ExceptIf') { $exceptions += $key } else { $conditions += $key }
    }
    $all['Conditions'] = $conditions
    $all['Exceptions'] = $exceptions
    $all['Actions'] = @(foreach ($key in 'RouteMessageOutboundConnector', 'SetHeaderName', 'RemoveHeader') { if ($null -ne $Stored[$key]) { $key } })
    $all['Description'] = $text.ToString()
    Show-StandInObject -Tenant $Tenant -Stored $all -Text @('Comments')
}

$script:Handlers['Get-TransportRule'] = {
    param($call)
    $found = $call.Tenant.Rules
    if ($call.Given.ContainsKey('Identity')) { $found = @(Find-StandInObject -List $found -Identity $call.Given['Identity'] -What 'rule') }
    if ($call.Given.ContainsKey('State')) { $found = @($found | Where-Object { $_['State'] -eq $call.Given['State'] }) }
    foreach ($one in $found) { Show-StandInRule -Tenant $call.Tenant -Stored $one }
}

$script:Handlers['New-TransportRule'] = {
    param($call)
    $tenant = $call.Tenant
    $given = $call.Given
    Assert-StandInHydrated -Tenant $tenant
    Assert-StandInName -List $tenant.Rules -Name $given['Name'] -Self $null
    $made = New-StandInStamp -Name $given['Name']
    $made['ImmutableId'] = $made['Guid']
    $made['State'] = 'Enabled'
    $made['Priority'] = $tenant.Rules.Count
    $made['Mode'] = 'Enforce'
    $made['Comments'] = $null
    foreach ($key in $script:Table.cmdlets['New-TransportRule'].parameters.Keys) {
        if ($script:RuleOwn -notcontains $key) { $made[$key] = $script:RuleDefault[$key] }
    }
    if ($given.ContainsKey('Enabled') -and -not $given['Enabled']) { $made['State'] = 'Disabled' }
    Merge-StandInRule -Tenant $tenant -Stored $made -Given $given
    $priority = $tenant.Rules.Count
    if ($given.ContainsKey('Priority')) { $priority = $given['Priority'] }
    Move-StandInRule -Tenant $tenant -Rule $made -Priority $priority
    Show-StandInRule -Tenant $tenant -Stored $made
}

$script:Handlers['Set-TransportRule'] = {
    param($call)
    $tenant = $call.Tenant
    $stored = Find-StandInObject -List $tenant.Rules -Identity $call.Given['Identity'] -What 'rule'
    $next = Copy-StandInStored $stored
    Merge-StandInRule -Tenant $tenant -Stored $next -Given $call.Given
    if ($call.Given.ContainsKey('Name')) {
        Assert-StandInName -List $tenant.Rules -Name $call.Given['Name'] -Self $stored
        $next['Name'] = $call.Given['Name']
        $next['Identity'] = $call.Given['Name']
    }
    if ($call.Given.ContainsKey('Priority')) { Move-StandInRule -Tenant $tenant -Rule $stored -Priority $call.Given['Priority'] }
    foreach ($key in @($next.Keys)) { if ($key -ne 'Priority') { $stored[$key] = $next[$key] } }
}

$script:Handlers['Remove-TransportRule'] = {
    param($call)
    $stored = Find-StandInObject -List $call.Tenant.Rules -Identity $call.Given['Identity'] -What 'rule'
    [void]$call.Tenant.Rules.Remove($stored)
    Update-StandInPriority -Tenant $call.Tenant
}

$script:Handlers['Enable-TransportRule'] = {
    param($call)
    $stored = Find-StandInObject -List $call.Tenant.Rules -Identity $call.Given['Identity'] -What 'rule'
    $stored['State'] = 'Enabled'
    if ($call.Given.ContainsKey('Mode')) { $stored['Mode'] = $call.Given['Mode'] }
}

$script:Handlers['Disable-TransportRule'] = {
    param($call)
    $stored = Find-StandInObject -List $call.Tenant.Rules -Identity $call.Given['Identity'] -What 'rule'
    $stored['State'] = 'Disabled'
}

$script:Handlers['Export-TransportRuleCollection'] = {
    param($call)
    $lines = @('<?xml version="1.0" encoding="utf-16" standalone="yes"?>', '<rules name="TransportVersioned">')
    foreach ($rule in $call.Tenant.Rules) { $lines += '  <rule name="' + [System.Security.SecurityElement]::Escape($rule['Name']) + '" />' }
    $lines += '</rules>'
    [pscustomobject]@{ FileData = [System.Text.Encoding]::Unicode.GetBytes($lines -join "`r`n"); Identity = ''; IsValid = $true }
}
